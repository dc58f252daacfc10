"""The channel on which processes publish their changes. Messages are numbered, so that lost ones are noticed."""

import asyncio
import json
import logging
import secrets
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from tequipy_caching.cache.metrics import CacheMetrics
from tequipy_caching.cache.tiers import Change
from tequipy_caching.redis.cancellation import cancel_and_wait
from tequipy_caching.redis.connections import CHANNEL_CONNECTIONS
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.messages import (
    PROBE,
    Listener,
    Message,
    Position,
    change_to_json,
    decode_message,
    decode_refused,
    encode_message,
)
from tequipy_caching.redis.scripts import digest_of, script
from tequipy_caching.redis.writes import UNDELIVERED, kind_of, refusal_of

PING_AFTER: Final = 0.4
"""Seconds between two checks of the channel. A check is a repeated SUBSCRIBE, which every server answers."""
ANSWER_TIMEOUT: Final = 1.5
"""Seconds without a response after which the channel is disconnected: a silently cut connection raises no error."""
_RECONNECT_AFTER: Final = 0.5
_SHORTEST_WAIT: Final = 0.01
"""Seconds; positive, so that a busy process reads messages that have arrived before it concludes that none has."""

logger = logging.getLogger(__name__)


class Backplane:
    """Listens from `start` to `stop`, and is `live` while this process is known to receive every message.

    After a disconnection, the position of the channel is compared with the last known one. If it is the same, no
    message was missed; if not, every listener gets `on_gap` before `live` is true again. The channel counts as joined
    only when this process has received a message of its own, so that a server that refuses scripts, messages or
    subscriptions is not mistaken for one without changes.
    """

    def __init__(self, link: RedisLink, *, metrics: CacheMetrics) -> None:
        self.live_until = -inf
        """The moment of the monotonic clock until which this process may assume that it has read every message, counted
        from the last answered check. It is a deadline because a suspended process cannot clear a flag."""
        self._joined = False
        self._probe: str | None = None
        """The body of the message that this process published to itself; None before that."""
        self._link = link
        self._listeners: dict[str, Listener] = {}
        self._refused_topics: set[str] = set()
        """Topics without a listener of which a refused change was received; a later listener gets it as a clear."""
        self._received = metrics.tally("cache_backplane_messages", "in")
        self._gaps = metrics.tally("cache_backplane_gaps")
        self._disconnected_seconds = metrics.tally("cache_backplane_deaf_seconds")
        self._origin = ""
        self._disconnected_since = 0.0
        self._client: Redis | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def live(self) -> bool:
        """Whether this process is connected: it has read every message published until the last answered check."""
        return monotonic() < self.live_until

    def message(self, topic: str, body: Any) -> Message:  # noqa: ANN401 -- JSON
        """Return the message for the topic's listeners in all other processes; `RedisLink.run_and_publish` sends it."""
        return encode_message(self._origin, topic, body)

    def listen(self, topic: str, listener: Listener) -> None:
        """Register the listener of a topic. It gets `on_gap` at once, because it has missed all earlier messages."""
        self._listeners[topic] = listener
        listener.on_gap()
        if topic in self._refused_topics:
            self._notify_refused_change(listener, change_to_json(Change("clear")))

    def start(self) -> None:
        """Start to listen."""
        self._origin = secrets.token_hex(8)  # not in __init__, because forked processes must differ
        self._disconnected_since = monotonic()
        self._task = asyncio.create_task(self._listen(), name="cache-backplane")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        if self._client is not None:  # the task may have been cancelled while it closed the client
            with suppress(RedisError, OSError):
                await self._client.aclose()
            self._client = None
        self._link.position = None

    async def _listen(self) -> None:
        """Connect to the channel and receive messages; after each disconnection connect again."""
        while True:
            # Two connections: one listens, the other one runs the join script. They are new after each disconnection,
            # because the host name may lead to another server now.
            client = self._client = self._link.connect(CHANNEL_CONNECTIONS)
            try:
                async with client.pubsub() as channel:
                    await self._receive(channel, client)
            except Exception as error:  # noqa: BLE001 -- the task must continue after any failure
                if self._task is not None and self._task.cancelling():  # redis-py raised it instead of `CancelledError`
                    return
                if self._joined:
                    text = f"{type(error).__name__}: {error}"
                    logger.warning("cache_backplane_disconnected", extra={**self._link.labels, "error": text})
                    self._disconnected_since = monotonic()
                elif kind_of(error) == "connection":
                    await self._link.check_reachable()
                if (refusal := refusal_of(error)) is not None:
                    # The server does not say which channel it is, and it depends on the database's number.
                    about = f" ({self._link.channel})" if refusal.startswith("NOPERM") else ""
                    self._link.writes.refuse_channel(f"{refusal}{about}")
                    self._link.recovery.distrust()
            finally:
                self.live_until, self._joined, self._probe = -inf, False, None
                with suppress(RedisError, OSError):
                    await client.aclose()
            await asyncio.sleep(_RECONNECT_AFTER)
            self._count_disconnected_time()

    async def _receive(self, channel: PubSub, client: Redis) -> None:
        """Handle messages, and check the channel every `PING_AFTER` seconds; raises an exception when it is lost.

        `asked` is the time of the check that has no answer yet, `answered` the time of the last check that has one.
        """
        rejoins = self._link.rejoins
        asked: float | None = None
        answered = -inf
        ask_at = monotonic()
        while True:
            if self._link.rejoins != rejoins:
                raise InvalidResponse("the server was a replica, or has older data")
            now = monotonic()
            if asked is None and now >= ask_at:
                await channel.subscribe(self._link.channel)  # not PING, which a server refuses after a failed save
                asked, ask_at = now, now + PING_AFTER
            left = ask_at - now if asked is None else asked + ANSWER_TIMEOUT - now
            message = await channel.get_message(timeout=max(_SHORTEST_WAIT, left))
            if message is None:
                if asked is not None and monotonic() - asked >= ANSWER_TIMEOUT:
                    raise TimeoutError(f"the channel did not answer for {ANSWER_TIMEOUT:g} s")
                continue
            match message["type"]:
                case "subscribe" if asked is not None:
                    if not self._joined:
                        await self._join(client)
                    answered, asked = asked, None
                case "message":
                    self._handle(message["data"])
                case _:
                    raise InvalidResponse("the channel sent an unknown response")
            if self._joined:
                # The channel keeps the order, so every message published before the check has been read.
                self.live_until = answered + PING_AFTER + ANSWER_TIMEOUT

    async def _join(self, client: Redis) -> None:
        """Compare the channel's position with the known one, and publish a message that this process must receive."""
        if self._probe is not None:  # published before the last check, so it should have arrived before the response
            raise ResponseError(UNDELIVERED)
        probe = secrets.token_hex(8)
        known = self._link.position or Position("", 0)
        message = json.dumps([self._origin, PROBE, probe])
        names = (self._link.state, self._link.probe_key)
        values = (secrets.token_hex(8), known.epoch, known.sequence, self._link.channel, message)
        try:  # by its digest first, because this also tests whether EVALSHA is permitted
            answer = await client.evalsha(digest_of("join"), len(names), *names, *values)
        except NoScriptError:
            answer = await client.eval(script("join"), len(names), *names, *values)
        epoch, sequence, refusal, old = answer
        position = Position((epoch or b"").decode(), int(sequence or 0))
        if refusal is not None:
            # Refused changes have no sequence numbers, so this process cannot know whether it missed some.
            self._link.distrust(refusal, old=bool(old))
        if refusal is not None or position != self._link.position:
            self._notify_gap()
        if not old:  # otherwise the known position must show at the next join that these data are older
            self._link.position = position
        self._probe = probe

    def _note_joined(self) -> None:
        """Count the channel as joined, because the message of this process has come back."""
        self._count_disconnected_time()
        self._joined = True
        self._link.writes.channel_refused = False
        self._link.breaker.probe_now()

    def _handle(self, data: bytes) -> None:
        """Pass a message on to the listener of its topic, unless this process has published it itself."""
        self._received.count += 1
        try:
            if (refused := decode_refused(data)) is not None:
                self._handle_refused(*refused)
                return
            position, origin, topic, body = decode_message(data)
        except ValueError:
            self._notify_gap()  # of a later version, or foreign: it may mean any change
            return
        self._advance(position, is_probe=topic == PROBE)
        if topic == PROBE:
            self._handle_probe(origin, body)
            return
        listener = self._listeners.get(topic)
        if listener is not None and origin != self._origin:
            try:
                listener.on_message(body)
            except ValueError:
                listener.on_gap()

    def _advance(self, position: Position, *, is_probe: bool) -> None:
        """Record the position of a message; if messages before it were missed, every listener gets `on_gap`."""
        known = self._link.position
        if known is None or position.epoch != known.epoch:
            self._notify_gap()
        elif position.sequence > known.sequence + (not is_probe):  # a probe has the number of the message before it
            self._gaps.count += 1
            self._notify_gap()
        elif position.sequence <= known.sequence:
            return  # published before this process joined; handling it again is harmless
        self._link.position = position

    def _handle_probe(self, origin: str, body: Any) -> None:  # noqa: ANN401 -- JSON
        if origin == self._origin and body == self._probe and not self._joined:
            self._note_joined()
        if origin not in {"", self._origin} and len(self._link.recovery):
            # Another process joins. It has not received refused changes, and cannot detect that, because they have no
            # sequence numbers. So the recovery queue is replayed now.
            self._link.breaker.probe_now()

    def _handle_refused(self, origin: str, topic: str, body: Any) -> None:  # noqa: ANN401 -- JSON
        """Pass on a change that Redis refused. It has no sequence number, because Redis refused to increment it."""
        listener = self._listeners.get(topic)
        if listener is None:
            self._refused_topics.add(topic)
        elif origin != self._origin:
            self._notify_refused_change(listener, body)

    @staticmethod
    def _notify_refused_change(listener: Listener, body: Any) -> None:  # noqa: ANN401 -- JSON
        try:
            listener.on_refused_change(body)
        except ValueError:
            listener.on_gap()

    def _notify_gap(self) -> None:
        for listener in self._listeners.values():
            listener.on_gap()

    def _count_disconnected_time(self) -> None:
        now = monotonic()
        self._disconnected_seconds.count += now - self._disconnected_since
        self._disconnected_since = now

"""Redis, set up so that a call pays a bounded time when it is away, and later calls nothing."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Iterator, Sequence
from functools import cache, partial
from hashlib import sha1
from importlib.resources import files
from time import monotonic
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tequipy_caching.domain.exceptions import CacheUnavailable
from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.domain.recovery import RecoveryQueue
from tequipy_caching.infrastructure.breaker import Breaker
from tequipy_caching.infrastructure.cancellation import Cancellation
from tequipy_caching.infrastructure.connections import (
    ConnectionLost,
    Connections,
    Deadline,
    NoFreeConnection,
    ProgressParser,
    ServerFull,
    current_deadline,
    exchange,
)
from tequipy_caching.infrastructure.loop_binding import LoopBinding
from tequipy_caching.infrastructure.redis_url import parse_redis_url
from tequipy_caching.infrastructure.writes import Writes, as_reason, refusal_of

_SLOT_WAIT_FACTOR: Final = 4
"""How many times the timeout a request may wait for a connection, before its own time begins."""
_MAX_LARGE_TRANSFERS: Final = 2
"""How many values over a mebibyte are on their way at once: the small ones are not to wait for them."""
_SCRIPTS: Final = files("tequipy_caching.infrastructure") / "scripts"
_PUBLISH: Final = "publish"
_JOIN: Final = "join"
PROBE: Final = "probe"
"""The topic of messages that change nothing."""
_PROBE_MESSAGE: Final = json.dumps(["", PROBE, ""])
_LAG_SHARE: Final = 0.2
"""A deadline that is noticed by this share too late was missed by this process, not by Redis."""

logger = logging.getLogger(__name__)


@cache
def script(name: str) -> str:
    """Return the text of a script of the folder `scripts`, with what it needs to tell the other processes."""
    text = (_SCRIPTS / f"{name}.lua").read_text()
    return (_SCRIPTS / f"{_PUBLISH}.lua").read_text() + text if f"{_PUBLISH}()" in text else text


@cache
def digest_of(name: str) -> str:
    """Return the digest by which a server knows a script that it has run before."""
    return sha1(script(name).encode()).hexdigest()  # noqa: S324 -- as EVALSHA has it


class Position(NamedTuple):
    """How much of the channel a process has received; with another epoch nothing can be said."""

    epoch: str
    sequence: int


class Message(NamedTuple):
    """What a script tells the other processes."""

    numbered: str
    """Published by the script, with a number."""
    refused: str
    """Published alone, when Redis refuses the change itself."""


class RedisLink:
    """Runs scripts; raises `CacheUnavailable` after `timeout` seconds, and at once while the breaker is open."""

    def __init__(self, url: str, *, prefix: str, timeout: float, metrics: CacheMetrics) -> None:
        self.prefix = prefix
        self.state = f"{prefix}:state"
        self.probe_key = f"{prefix}:probe"
        self.breaker = Breaker(
            self._recover, has_pending=lambda: len(self.recovery) > 0 or self.writes.refusal is not None
        )
        self.recovery = RecoveryQueue(self.breaker.start_probing)
        self.writes = Writes(self.breaker.start_probing, self.recovery.trust_soon)
        self.demotions = 0
        """How often a primary was found after a replica had refused writes: the channel had better connect anew."""
        self._demoted = False
        self.position: Position | None = None
        """How much of the channel this process has received: a server that holds less has lost what came last."""
        self._server = parse_redis_url(url)
        # A server's channels are common to all its databases, its keys are not.
        self.channel = f"{prefix}:invalidations:{self._server.database}"
        self._timeout = timeout
        self._observe = cache(partial(metrics.seconds, "cache_l2_seconds"))
        self.loop_binding = LoopBinding()
        self._connections = Connections(self.connect, self._compare_epoch)
        self.large_turns = asyncio.Semaphore(_MAX_LARGE_TRANSFERS)
        self._reported: set[type[Exception]] = set()
        self._errors = {
            kind: metrics.tally("cache_l2_errors", kind) for kind in ("busy", "connection", "timeout", "answer")
        }
        self._published = metrics.tally("cache_backplane_messages", "out")
        metrics.watch("cache_breaker_state", lambda: self.breaker.open)
        metrics.watch("cache_writes_refused", lambda: self.writes.refusal is not None)
        metrics.watch("cache_recovery_queue", lambda: len(self.recovery))

    def connect(self, connections: int) -> Redis:
        """Return a client with a bounded pool whose connections try once: redis-py's own retries hide outages."""
        server = self._server
        return Redis.from_pool(
            BlockingConnectionPool(
                connection_class=Connection if server.tls is None else SSLConnection,
                **(server.tls or {}),
                host=server.host,
                port=server.port,
                db=server.database,
                username=server.username,
                password=server.password,
                max_connections=connections,
                timeout=None,  # waiting for a connection is no outage: the caller's own deadline ends it
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                parser_class=ProgressParser,
                retry=Retry(NoBackoff(), 0),
                retry_on_error=[],
                health_check_interval=0,
                protocol=2,  # nothing of RESP3 is used, and it costs each connection a round trip
            )
        )

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:  # noqa: ANN401 -- each script has an answer of its own
        """Run a script by the name of its file and return its answer."""
        return await self._run(name, keys, arguments)

    async def _run(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], refused_message: str | None = None
    ) -> Any:  # noqa: ANN401 -- as above
        """Run a script; when Redis answers that it refuses writes, publish the message that stands for the change."""
        self.loop_binding.check()
        if not self.breaker.allows_call():
            raise CacheUnavailable("Redis is away")
        try:
            return await self._run_in_turn(name, keys, arguments)
        except NoFreeConnection as error:
            self._errors["busy"].count += 1
            raise CacheUnavailable(f"Redis did not {name}: no connection was free") from error
        except CacheUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever server and driver do, callers go on without Redis
            failure = error
        self._errors[kind_of(failure)].count += 1
        self._report_unexpected(failure)
        if (reason := refusal_of(failure)) is not None:
            await self._refuse(reason, failure, refused_message)
        raise CacheUnavailable(f"Redis did not {name}: {type(failure).__name__}") from failure

    async def _run_in_turn(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:  # noqa: ANN401 -- as above
        """Run a script when a connection is free; where the server takes no more, that is one of those it has taken."""
        ends = monotonic() + _SLOT_WAIT_FACTOR * self._timeout
        while True:
            with contextlib.suppress(ServerFull):
                return await self._connections.in_turn(
                    ends - monotonic(), partial(self._run_now, name, keys, arguments)
                )

    async def _run_now(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:  # noqa: ANN401 -- as above
        """Run a script in time, or open the breaker; before the connection is free for those who wait behind."""
        if not self.breaker.allows_call():  # opened by those in front
            raise CacheUnavailable("Redis is away")
        started, deadline = monotonic(), Deadline(self._timeout)
        token = current_deadline.set(deadline)
        try:
            async with deadline.timeout:
                answer = await self._evaluate(name, len(keys), [*keys, *arguments])
        except Exception as error:
            kind = kind_of(error)
            if (kind == "connection" and not isinstance(error, ConnectionLost)) or (
                kind == "timeout" and not await self._lags(deadline)
            ):
                self.breaker.trip(error)
            raise
        finally:
            current_deadline.reset(token)
            deadline.over = True
        self._observe(name)(monotonic() - started)
        return answer

    def _report_unexpected(self, error: Exception) -> None:
        """Log the first error of each type that no outage explains: the driver's fault, or ours."""
        if not isinstance(error, RedisError | OSError) and type(error) not in self._reported:
            self._reported.add(type(error))
            logger.error("cache_request_failed", exc_info=error)

    async def run_and_publish(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, message: Message
    ) -> Any:  # noqa: ANN401 -- as run
        """Run a script that calls `publish()`: what it changes and the message to all processes are one step."""
        told = [self.channel, secrets.token_hex(8), message.numbered]
        answer = await self._run(name, [self.state, *keys], [*told, *arguments], message.refused)
        self._published.count += 1
        return answer

    async def check_reachable(self) -> None:
        """The channel could not be joined: open the breaker if Redis is away, else make room for the channel."""
        with contextlib.suppress(CacheUnavailable):
            await self._run("probe", [self.state, self.probe_key], [])
            await self._connections.make_room()

    async def ping(self) -> float:
        """Return the seconds that Redis took to answer, and learn whether it takes writes.

        Asks it even while the breaker is open. Raises `CacheUnavailable`; a server that refuses writes is there.
        """
        self.loop_binding.check()
        started = monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    await self._probe()
                except ServerFull:
                    await self._connections.in_turn(self._timeout, self._probe)
        except Exception as error:
            raise CacheUnavailable(f"Redis does not answer: {type(error).__name__}") from error
        return monotonic() - started

    async def _probe(self) -> None:
        try:
            # What is to be accepted again must take messages too.
            message = [] if self.writes.refusal is None else [self.channel, _PROBE_MESSAGE]
            reason = await self._evaluate("probe", 2, [self.state, self.probe_key, *message])
        except ResponseError as error:
            if (refusal := refusal_of(error)) is None:
                raise
            await self._refuse(refusal, error, None)
            return
        if reason is None:
            self._accept()
        else:
            self.writes.refuse(as_reason(reason.decode(errors="replace")), blocked=False)

    async def _refuse(self, reason: str, error: Exception, message: str | None) -> None:
        """Note a refusal and tell the other processes of the change that was refused: PUBLISH is no write."""
        self.writes.refuse(reason, blocked=not isinstance(error, OutOfMemoryError))
        if message is not None:
            with contextlib.suppress(RedisError, OSError, NoFreeConnection, ServerFull):
                async with asyncio.timeout(self._timeout):
                    publish = partial(self._connections.execute, "PUBLISH", self.channel, message)
                    await self._connections.in_turn(self._timeout, publish)
                self._published.count += 1
        if isinstance(error, ReadOnlyError):  # after PUBLISH: by now the name may be that of another server
            await self._connections.disconnect_idle()
            if not self._demoted:
                self._demoted = True
                self.breaker.probe_now()

    def _accept(self) -> None:
        self.writes.accept()
        if self._demoted:
            self._demoted = False
            self.demotions += 1

    async def close(self) -> None:
        """Close all connections; what waits to be replayed gets one last chance, if Redis is there."""
        await self.breaker.stop()
        with contextlib.suppress(CacheUnavailable):
            await self.recovery.replay()
        await self.breaker.stop()  # the replay may have opened it
        await self._connections.close()
        self.loop_binding.unbind()
        self.large_turns = asyncio.Semaphore(_MAX_LARGE_TRANSFERS)

    async def _recover(self) -> None:
        await self.ping()
        if not self.writes.blocked:
            await self.recovery.replay()

    async def _lags(self, deadline: Deadline) -> bool:
        """Tell whether this process itself was too busy to hear an answer in time."""
        noticed, due = monotonic(), deadline.timeout.when() or 0
        await asyncio.sleep(0)
        slack = self._timeout * _LAG_SHARE
        return noticed - due > slack or monotonic() - noticed > slack

    async def _evaluate(self, name: str, number_of_keys: int, values: Sequence[Any]) -> Any:  # noqa: ANN401 -- as run
        """Run a script by its digest; a server that does not know it is given its text."""
        try:
            return await self._connections.execute("EVALSHA", digest_of(name), number_of_keys, *values)
        except NoScriptError:
            return await self._connections.execute("EVAL", script(name), number_of_keys, *values)

    async def _compare_epoch(self, connection: AbstractConnection, cancellation: Cancellation) -> None:
        """Have a new connection's server begin a new epoch if it has started again, before any answer is believed.

        It may have an older state, which shows what has been deleted since. Where writes are refused it cannot begin
        one: then nothing that it holds is believed.
        """
        known = self.position or Position("", 0)
        rest: list[Any] = [2, self.state, self.probe_key, secrets.token_hex(8), known.epoch, known.sequence]
        with reading(_JOIN):
            try:
                command = ["EVALSHA", digest_of(_JOIN), *rest]
                answer = await exchange(connection, command, cancellation)
            except NoScriptError:
                command = ["EVAL", script(_JOIN), *rest]
                answer = await exchange(connection, command, cancellation)
            _, _, refusal, old = answer
            if old:
                self.distrust(refusal)

    def distrust(self, refusal: bytes) -> None:
        """Note that Redis refuses writes, by its own words, and that this process has not received all of them."""
        self.writes.refuse(as_reason(refusal.decode(errors="replace")), blocked=True)
        self.recovery.distrust()


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise `CacheUnavailable` for an answer that the script does not give: no server of ours has sent it."""
    try:
        yield
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise CacheUnavailable(f"Redis gave an unreadable answer to {name}: {type(error).__name__}") from error


def kind_of(error: Exception) -> str:
    """Return what a failed request says of Redis: timeout, connection (both: it is away) or answer (it says no)."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, RedisConnectionError | OSError):
        return "connection"
    return "answer"  # read-only, out of memory, …

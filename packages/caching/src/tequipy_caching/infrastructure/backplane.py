"""The invalidation channel: what one process changes, the others drop from their memory."""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.infrastructure.ending import end
from tequipy_caching.infrastructure.redis import RedisTier

PING_AFTER: Final = 0.4
"""Seconds of silence after which the channel is asked whether it is still there."""
DEAF_AFTER: Final = 1.5
"""Seconds without an answer after which it is not: a connection that is cut silently never says so itself."""
_RECONNECT_AFTER: Final = 0.5

logger = logging.getLogger(__name__)


class Backplane:
    """Listens from `start` to `stop`; `live` while this process can trust that it hears every invalidation."""

    def __init__(
        self,
        redis: RedisTier,
        *,
        drop: Callable[[str, Sequence[str]], None],
        drop_all: Callable[[], None],
        metrics: CacheMetrics,
    ) -> None:
        self.live = False
        self._redis = redis
        self._drop = drop
        self._drop_all = drop_all
        self._heard = metrics.backplane_messages("in")
        self._origin = ""
        self._listener: asyncio.Task[None] | None = None

    def message(self, cache: str, names: Sequence[str]) -> str:
        """Return the message that has every other process drop its copies."""
        return json.dumps([self._origin, cache, list(names)])

    def start(self) -> None:
        """Begin to listen."""
        self._origin = secrets.token_hex(8)  # here, not when built: processes that are forked later must differ
        self._listener = asyncio.create_task(self._listen(), name="cache-backplane")

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            await end(self._listener)
            self._listener = None

    async def _listen(self) -> None:
        async with self._redis.connect(1) as client:
            while True:
                try:
                    async with client.pubsub() as channel:
                        await self._hear_from(channel)
                except (RedisError, OSError) as error:
                    if self.live:
                        logger.warning("cache_backplane_deaf", extra={"error": f"{type(error).__name__}: {error}"})
                    else:
                        self._redis.breaker.trip(error)
                finally:
                    self.live = False
                await asyncio.sleep(_RECONNECT_AFTER)

    async def _hear_from(self, channel: PubSub) -> None:
        await channel.subscribe(self._redis.channel)
        while True:
            message = await channel.get_message(timeout=PING_AFTER)
            if message is None:
                await channel.ping()
                message = await channel.get_message(timeout=DEAF_AFTER)
            if message is None:
                raise TimeoutError(f"the channel did not answer for {DEAF_AFTER:g} s")
            self._hear(message["type"], message["data"])

    def _hear(self, kind: str, data: bytes) -> None:
        if kind == "subscribe":
            # What was published before is lost: nothing held from then can be trusted.
            self._drop_all()
            self.live = True
        elif kind == "message":
            self._heard.count += 1
            try:
                origin, cache, names = _parse(data)
            except ValueError:
                self._drop_all()  # of a version to come, or nobody's: anything may have changed
            else:
                if origin != self._origin:
                    self._drop(cache, names)


def _parse(data: bytes) -> tuple[str, str, list[str]]:
    match json.loads(data):
        case [str(origin), str(cache), [*names]] if all(isinstance(name, str) for name in names):
            return origin, cache, names
        case _:
            raise ValueError("not a message of this version")

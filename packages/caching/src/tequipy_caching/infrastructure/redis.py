"""The second tier: Redis, set up so that a call pays a bounded time when it is away, and later calls nothing."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from time import monotonic
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tequipy_caching.domain.exceptions import CacheUnavailable
from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.infrastructure.breaker import Breaker
from tequipy_caching.infrastructure.envelope import HEADER_BYTES, tombstone

_CONNECTIONS: Final = 50
_SCRIPTS: Final = ("read", "store", "write")


class Found(NamedTuple):
    """A name as Redis had it."""

    sealed: bytes | None
    """What it held: an envelope, a tombstone, something foreign or None."""
    left: int
    """Milliseconds until Redis forgets it."""
    at: int
    """Redis's own clock when it was read, in milliseconds."""


class RedisTier:
    """Keeps sealed values, and tells the other processes what has changed.

    Every method raises `CacheUnavailable` after `timeout` seconds at most, and at once while the breaker is open.
    """

    def __init__(self, url: str, *, prefix: str, timeout: float, tombstone_ttl: float, metrics: CacheMetrics) -> None:
        self.prefix = prefix
        self.channel = f"{prefix}:invalidations"
        self.breaker = Breaker(self.ping)
        self._url = url
        self._timeout = timeout
        self._tombstone_ms = round(tombstone_ttl * 1000)
        self._client = self.connect(_CONNECTIONS)
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        folder = files("tequipy_caching.infrastructure") / "scripts"
        self._scripts: dict[str, AsyncScript] = {
            name: self._client.register_script((folder / f"{name}.lua").read_text()) for name in _SCRIPTS
        }
        self._seconds = {name: metrics.l2_seconds(name) for name in _SCRIPTS}
        self._errors = {kind: metrics.l2_errors(kind) for kind in ("busy", "connection", "timeout", "answer")}
        self._published = metrics.backplane_messages("out")

    def connect(self, connections: int) -> Redis:
        """Return a client with a bounded pool whose connections try once: redis-py's own retries hide outages."""
        return Redis.from_pool(
            BlockingConnectionPool.from_url(
                self._url,
                max_connections=connections,
                timeout=None,  # waiting for a connection is no outage: the caller's own deadline ends it
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
                retry_on_error=[],
                health_check_interval=0,
                protocol=2,  # nothing of RESP3 is used, and it costs each connection a round trip
            )
        )

    def tail(self, life: int) -> int:
        """Return the milliseconds to keep a value beyond its life, so that it outlives every load it must fence off."""
        return max(0, self._tombstone_ms - life)

    async def read(self, names: Sequence[str]) -> list[Found]:
        """Return names as they are, in their order."""
        at, *answers = await self._run("read", names, [])
        return [Found(sealed, left, at) for sealed, left in zip(answers[::2], answers[1::2], strict=True)]

    async def store(self, name: str, sealed: bytes, life: int, *, seen: Found) -> bool:
        """Keep what was loaded for `life` milliseconds unless the name has changed since it was seen."""
        beginning = (seen.sealed or b"")[:HEADER_BYTES]
        answer = await self._run("store", [name], [sealed, life, beginning, seen.at, self._tombstone_ms])
        return bool(answer)

    async def write(self, name: str, sealed: bytes, life: int, *, message: str) -> None:
        """Keep what was given for `life` milliseconds and tell the other processes, in one step."""
        await self._run("write", [name], [sealed, life, self.channel, message])
        self._published.count += 1

    async def remove(self, names: Sequence[str], *, message: str) -> None:
        """Put tombstones in the place of names and tell the other processes, in one step."""
        await self._run("write", names, [tombstone(), self._tombstone_ms, self.channel, message])
        self._published.count += 1

    async def ping(self) -> float:
        """Return the seconds that Redis took to answer; asks it even while the breaker is open."""
        started = monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.ping()
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            raise CacheUnavailable(f"Redis does not answer: {type(error).__name__}") from error
        return monotonic() - started

    async def close(self) -> None:
        """Close all connections."""
        await self.breaker.stop()
        await self._client.aclose()

    async def _run(self, operation: str, names: Sequence[str], arguments: list[Any]) -> Any:  # noqa: ANN401 -- each script has an answer of its own
        if self.breaker.open:
            raise CacheUnavailable("Redis is away")
        started = monotonic()
        connected = False
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                connected = True
                answer = await self._scripts[operation](keys=names, args=arguments)
        except (RedisError, OSError) as error:
            kind = _kind(error) if connected else "busy"
            self._errors[kind].count += 1
            if kind in {"connection", "timeout"}:
                self.breaker.trip(error)
            raise CacheUnavailable(f"Redis did not {operation}: {type(error).__name__}") from error
        self._seconds[operation](monotonic() - started)
        return answer


def _kind(error: Exception) -> str:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, RedisConnectionError | OSError):
        return "connection"
    return "answer"  # it is there and says no: read-only, out of memory, …

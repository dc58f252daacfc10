"""The cache itself: memory first, Redis behind it, one load when neither has the value."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import random
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from tequipy_caching.domain.exceptions import CacheUnavailable
from tequipy_caching.domain.fences import Fence, Fences
from tequipy_caching.domain.flights import Flights
from tequipy_caching.domain.keys import Key, encode_key
from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.domain.policies import CachePolicy, check_ttl
from tequipy_caching.domain.ports import MISSING, Cache, Missing
from tequipy_caching.infrastructure.backplane import Backplane, Listener
from tequipy_caching.infrastructure.codec import Codec
from tequipy_caching.infrastructure.envelope import HEADER_BYTES, is_tombstone
from tequipy_caching.infrastructure.memory import MemoryTier
from tequipy_caching.infrastructure.shared import Found, RedisTier

V = TypeVar("V")


class _Looked(NamedTuple, Generic[V]):
    """What a look into the tiers gave."""

    value: V | Missing
    life: float = 0
    """Seconds that the value has left, for memory to keep it; 0: not to be kept."""
    found: Found | None = None
    """The state in Redis, for a load to be fenced by; None: unknown."""


class _Sealed(NamedTuple):
    """A value as Redis is to keep it."""

    data: bytes
    milliseconds: int
    fits: bool


class TieredCache(Cache[V], Listener, Generic[V]):
    """One named cache; made by `TieredCacheManager.cache`."""

    def __init__(
        self,
        name: str,
        type_: type[V],
        policy: CachePolicy,
        *,
        redis: RedisTier,
        backplane: Backplane,
        strict: bool,
        metrics: CacheMetrics,
    ) -> None:
        self.type = type_
        self.topic = f"cache:{name}"
        self._name = name
        self._policy = policy
        self._redis = redis
        self._backplane = backplane
        self._strict = strict
        self._codec = Codec(type_, policy.max_value_bytes) if "l2" in policy.tiers else None
        self._memory: MemoryTier[V] = MemoryTier(policy)
        self._looks = Fences()
        self._writes = Fences()
        self._flights: Flights[V] = Flights(name, policy.hard_timeout, metrics.coalesced_waiters(name))
        self._l1_hits = metrics.requests(name, "l1", "hit")
        self._l1_stale = metrics.requests(name, "l1", "stale")
        self._l1_misses = metrics.requests(name, "l1", "miss")
        self._l2_hits = metrics.requests(name, "l2", "hit")
        self._l2_misses = metrics.requests(name, "l2", "miss")
        self._l2_unreadable = metrics.requests(name, "l2", "unreadable")
        self._loads = {outcome: metrics.loads(name, outcome) for outcome in ("ok", "error", "cancelled")}
        self._load_seconds = metrics.load_seconds(name)
        self._fenced = metrics.fenced_fills(name)

    async def get(self, key: Key, default: Any = None) -> Any:  # noqa: ANN401 -- the port's overloads say it
        """Return the value of a key, or the default."""
        name = encode_key(key)
        if self._backplane.live:
            value = self._memory.get(name)
            if value is not MISSING:
                self._l1_hits.count += 1
                return value
        with self._looks.open(name) as fence:
            looked = await self._look(name)
            if looked.value is MISSING:
                return default
            if looked.life:
                self._keep(name, looked.value, looked.life, fence)
            return looked.value

    async def get_or_set(self, key: Key, factory: Callable[[], Awaitable[V]], ttl: float | None = None) -> V:
        """Return the value of a key, loading it when it is not there: one load for all who wait for it."""
        check_ttl(ttl)
        name = encode_key(key)
        if self._backplane.live:
            value = self._memory.get(name)
            if value is not MISSING:
                self._l1_hits.count += 1
                return value
        return await self._flights.join(name, lambda: self._load(name, factory, ttl))

    async def set(self, key: Key, value: V, ttl: float | None = None) -> None:
        """Write a value through to Redis and this process; every other process drops its copy."""
        check_ttl(ttl)
        name, life = encode_key(key), self._life(ttl)
        sealed = self._seal(name, value, life)
        # Two writers at once: Redis decides who is last and nobody here knows, so neither keeps its value in memory.
        alone = not self._writes.held(name)
        self._drop([name])
        with self._writes.open(name) as fence:
            try:
                await self._tell([name], sealed)
            finally:
                kept = alone and fence.whole and (sealed is None or sealed.fits)
                self._drop([name])  # who looked while Redis was written may have seen the old value
        if kept:
            self._memory.set(name, value, life)

    async def delete(self, *keys: Key) -> None:
        """Remove keys everywhere; a load that began before never brings the old value back."""
        names = [encode_key(key) for key in keys]
        if not names:
            return
        self._drop(names)
        try:
            await self._tell(names)
        finally:
            self._drop(names)  # who looked while Redis was written may have seen the old value

    def peek(self, key: Key) -> V | Missing:
        """Return what this process itself holds and may trust."""
        name = encode_key(key)
        return self._memory.get(name) if self._backplane.live or self._redis.link.breaker.open else MISSING

    def hear(self, body: Any) -> None:  # noqa: ANN401 -- JSON
        """Forget what another process has changed."""
        match body:
            case [*names] if all(isinstance(name, str) for name in names):
                self._drop(names)
            case _:
                raise ValueError("not a list of names")

    def miss(self) -> None:
        """Forget everything."""
        self._memory.clear()
        self._looks.breach_all()
        self._writes.breach_all()
        self._flights.forget_all()

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            self._memory.delete(name)
            self._looks.breach(name)
            self._writes.breach(name)
            self._flights.forget(name)

    def _keep(self, name: str, value: V, life: float, fence: Fence) -> None:
        if fence.whole:
            self._memory.set(name, value, life)
        else:
            self._fenced.count += 1

    async def _look(self, name: str) -> _Looked[V]:
        """Return what Redis has, or memory if there is no Redis to ask."""
        if self._codec is None:
            return self._look_inside(name, trusted=self._redis.link.breaker.open)
        self._l1_misses.count += 1
        try:
            (found,) = await self._redis.read([self._full(name)])
        except CacheUnavailable:
            if self._strict:
                raise
            return self._look_inside(name, trusted=True)
        if found.sealed is None or is_tombstone(found.sealed):
            self._l2_misses.count += 1
            return _Looked(MISSING, found=found)
        try:
            value, tail = self._codec.decode(name, found.sealed)
        except ValueError:
            self._l2_unreadable.count += 1
            return _Looked(MISSING, found=found)
        if found.left <= tail:
            self._l2_misses.count += 1
            return _Looked(MISSING, found=found)
        self._l2_hits.count += 1
        return _Looked(value, (found.left - tail) / 1000, found)

    def _look_inside(self, name: str, *, trusted: bool) -> _Looked[V]:
        # Deaf, memory may hold what others have changed. With Redis gone there is nothing better.
        value = self._memory.get(name) if trusted else MISSING
        (self._l1_misses if value is MISSING else self._l1_stale).count += 1
        return _Looked(value)

    async def _load(self, name: str, factory: Callable[[], Awaitable[V]], ttl: float | None) -> V:
        with self._looks.open(name) as fence:
            looked = await self._look(name)
            if looked.value is not MISSING:
                if looked.life:
                    self._keep(name, looked.value, looked.life, fence)
                return looked.value
            value = await self._call(factory)
            life = self._life(ttl)
            if await self._store(name, self._seal(name, value, life), looked.found):
                self._keep(name, value, life, fence)
            return value

    async def _call(self, factory: Callable[[], Awaitable[V]]) -> V:
        outcome, started = "error", monotonic()
        try:
            value = await factory()
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._loads[outcome].count += 1
            self._load_seconds(monotonic() - started)
        return value

    async def _store(self, name: str, sealed: _Sealed | None, found: Found | None) -> bool:
        """Offer a loaded value to Redis; tell whether memory may keep it."""
        if sealed is None:
            return True
        if not sealed.fits:
            return False
        if found is None:
            return True  # Redis was away: what memory keeps is dropped once the channel is heard again
        try:
            stored = await self._redis.store(self._full(name), sealed.data, sealed.milliseconds, seen=found)
        except CacheUnavailable:
            if self._strict:
                raise
            return True
        if not stored:
            self._fenced.count += 1
        return stored

    async def _tell(self, names: Sequence[str], sealed: _Sealed | None = None) -> None:
        """Change names in Redis, to a value or a tombstone, and tell the other processes."""
        message = self._backplane.message(self.topic, list(names))
        full = [self._full(name) for name in names] if self._codec is not None else []
        try:
            if sealed is not None and sealed.fits:
                await self._redis.write(full[0], sealed.data, sealed.milliseconds, message=message)
            else:
                await self._redis.remove(full, message=message)
        except CacheUnavailable:
            if self._strict:
                raise

    def _seal(self, name: str, value: V, life: float) -> _Sealed | None:
        if self._codec is None:
            return None
        milliseconds = max(1, round(life * 1000))
        tail = self._redis.tail(milliseconds)
        data = self._codec.encode(name, value, tail=tail)
        return _Sealed(data, milliseconds + tail, len(data) - HEADER_BYTES <= self._policy.max_value_bytes)

    def _life(self, ttl: float | None) -> float:
        return (ttl or self._policy.ttl) * (1 - self._policy.jitter * random())  # noqa: S311 -- no secret

    def _full(self, name: str) -> str:
        return f"{self._redis.link.prefix}:cache:{self._name}:{name}"

"""A twin of the caches that needs no Redis: memory alone, with a clock that a test can turn."""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tequipy_caching.domain.fences import Fences
from tequipy_caching.domain.flights import Flights
from tequipy_caching.domain.keys import Key, encode_key
from tequipy_caching.domain.metrics import Tally
from tequipy_caching.domain.policies import DEFAULT_POLICIES, CachePolicy, check_ttl, policy_of
from tequipy_caching.domain.ports import MISSING, Cache, CacheManager, Missing

__all__ = ["MemoryCache", "MemoryCacheManager", "TurnableClock"]

V = TypeVar("V")


class TurnableClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class MemoryCache(Cache[V], Generic[V]):
    """A cache in a dictionary; lives are exact, without jitter, and nothing is ever evicted."""

    def __init__(self, name: str, type_: type[V], policy: CachePolicy, clock: TurnableClock) -> None:
        self.type = type_
        self._policy = policy
        self._clock = clock
        self._entries: dict[str, tuple[float, V]] = {}
        self._fences = Fences()
        self._flights: Flights[V] = Flights(name, policy.hard_timeout, Tally())

    async def get(self, key: Key, default: Any = None) -> Any:  # noqa: ANN401 -- the port's overloads say it
        """Return the value of a key, or the default."""
        value = self.peek(key)
        return default if value is MISSING else value

    async def get_or_set(self, key: Key, factory: Callable[[], Awaitable[V]], ttl: float | None = None) -> V:
        """Return the value of a key, loading it when it is not there: one load for all who wait for it."""
        check_ttl(ttl)
        name = encode_key(key)

        async def load() -> V:
            with self._fences.open(name) as fence:
                value = await factory()
                if fence.whole:
                    self._store(name, value, ttl)
            return value

        value = self.peek(key)
        return await self._flights.join(name, load) if value is MISSING else value

    async def set(self, key: Key, value: V, ttl: float | None = None) -> None:
        """Keep a value."""
        check_ttl(ttl)
        await self.delete(key)
        self._store(encode_key(key), value, ttl)

    async def delete(self, *keys: Key) -> None:
        """Remove keys; a load that began before never brings the old value back."""
        for name in [encode_key(key) for key in keys]:
            self._entries.pop(name, None)
            self._fences.breach(name)
            self._flights.forget(name)

    def peek(self, key: Key) -> V | Missing:
        """Return what is held."""
        entry = self._entries.get(encode_key(key))
        return entry[1] if entry is not None and self._clock.seconds < entry[0] else MISSING

    def _store(self, name: str, value: V, ttl: float | None) -> None:
        self._entries[name] = (self._clock.seconds + (ttl or self._policy.ttl), value)


class MemoryCacheManager(CacheManager):
    """Names memory caches by the same policies as the real manager; `clock` turns for all of them."""

    def __init__(self, policies: Mapping[str, CachePolicy] | None = None) -> None:
        self.clock = TurnableClock()
        self._policies = {**DEFAULT_POLICIES, **(policies or {})}
        self._caches: dict[str, MemoryCache[Any]] = {}

    def cache(self, name: str, type_: type[V]) -> Cache[V]:
        """Return the cache of a name, always the same one."""
        cache = self._caches.get(name)
        if cache is None:
            cache = self._caches[name] = MemoryCache(name, type_, policy_of(name, self._policies), self.clock)
        elif cache.type != type_:
            raise ValueError(f"the cache {name!r} holds {cache.type}, not {type_}")
        return cache

    async def ping(self) -> float:
        """Return at once."""
        return 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep what is held: the fake may be entered again."""

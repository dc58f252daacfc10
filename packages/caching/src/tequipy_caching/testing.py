"""A twin of the caches that needs no Redis: the same rules on memory alone, with a clock that a test can turn."""

# ruff: noqa: ARG002 -- twins ignore what they do not need

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.memory import Memory
from tequipy_caching.domain.metrics import CacheMetrics, Observe, Read, Tally
from tequipy_caching.domain.policies import DEFAULT_POLICIES, CachePolicy, policy_of
from tequipy_caching.domain.ports import Cache, CacheHealth, CacheManager
from tequipy_caching.domain.recovery import RecoveryQueue
from tequipy_caching.domain.tiered import TieredCache
from tequipy_caching.domain.tiers import Look, Sealed, SharedTier

__all__ = ["MemoryCacheManager", "TurnableClock"]

V = TypeVar("V")


class TurnableClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class _Alone(SharedTier[V], Generic[V]):
    """The shared tier of a process that shares with nobody: it holds nothing and tells nobody."""

    stores = False
    away = False

    def seal(self, key: Key, value: V, life: float, tags: Sequence[str]) -> Sealed:
        return _Fitting()

    async def read(self, keys: Sequence[Key], tags: Sequence[str]) -> Mapping[Key, Look[V]]:
        return {}

    async def store(self, loaded: Mapping[Key, tuple[Sealed, object]]) -> Mapping[Key, bool]:
        return {}

    async def write(self, key: Key, sealed: Sealed) -> None: ...

    async def remove(self, keys: Sequence[Key]) -> None: ...

    async def expire(self, keys: Sequence[Key]) -> None: ...

    async def remove_tags(self, tags: Sequence[str]) -> None: ...

    async def clear(self) -> None: ...

    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease: float) -> Mapping[Key, float]:
        return dict.fromkeys(keys, 0.0)

    async def unlock(self, keys: Sequence[Key], token: str) -> None: ...


class _Unread(CacheMetrics):
    """Counts what nobody reads."""

    def tally(self, name: str, *labels: str) -> Tally:
        return Tally()

    def seconds(self, name: str, *labels: str) -> Observe:
        return lambda _: None

    def watch(self, name: str, read: Read, *labels: str) -> None: ...


class _Fitting:
    fits = True


class _Heard:
    live = True


class MemoryCacheManager(CacheManager):
    """Names caches by the same policies as the real manager; `clock` turns for all of them.

    Lives are exact, without jitter, and nothing is ever evicted. Factories' time-outs run on the real clock.
    """

    def __init__(self, policies: Mapping[str, CachePolicy] | None = None) -> None:
        self.clock = TurnableClock()
        self._policies = {**DEFAULT_POLICIES, **(policies or {})}
        self._caches: dict[str, TieredCache[Any]] = {}

    def cache(self, name: str, type_: Any) -> Cache[Any]:  # noqa: ANN401 -- the port's overloads say it
        """Return the cache of a name, always the same one."""
        cache = self._caches.get(name)
        if cache is None:
            cache = self._caches[name] = self._build(name, type_, policy_of(name, self._policies))
        elif cache.type != type_:
            raise ValueError(f"the cache {name!r} holds {cache.type}, not {type_}")
        return cache

    def health(self) -> CacheHealth:
        """Say that all is well."""
        return CacheHealth(l2="up", backplane="live", recovery_queue=0)

    async def ping(self) -> float:
        """Return at once."""
        return 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep what is held: the fake may be entered again."""

    def _build(self, name: str, type_: Any, policy: CachePolicy) -> TieredCache[Any]:  # noqa: ANN401 -- as above
        policy = replace(policy, tiers="l1", jitter=0)
        return TieredCache(
            name,
            type_,
            policy,
            memory=Memory(policy, {}, lambda: self.clock.seconds),
            shared=_Alone(),
            channel=_Heard(),
            recovery=RecoveryQueue(lambda: None),
            lease=policy.hard_timeout,
            strict=False,
            metrics=_Unread(),
        )

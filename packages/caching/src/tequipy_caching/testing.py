"""Twins of caches, sets and limits that need no Redis: the same rules on memory alone, with a clock that turns."""

# ruff: noqa: ARG002 -- twins ignore what they do not need

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tequipy_caching.domain.expiring_set import ExpiringSet, Source, check_member, ttls_of
from tequipy_caching.domain.gcra import Buckets, bucket_name, decide_all_locally, decide_locally
from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.limits import RateDecision, RateLimiter, RatePolicy, check_hits, decisive
from tequipy_caching.domain.memory import Memory
from tequipy_caching.domain.metrics import CacheMetrics, Observe, Read, Tally
from tequipy_caching.domain.names import check_name
from tequipy_caching.domain.policies import DEFAULT_POLICIES, CachePolicy, check_ttl, policy_of
from tequipy_caching.domain.ports import Cache, CacheHealth, CacheManager
from tequipy_caching.domain.recovery import RecoveryQueue
from tequipy_caching.domain.tiered import TieredCache
from tequipy_caching.domain.tiers import Encoded, Lookup, SharedTier

__all__ = ["MemoryCacheManager", "MemoryExpiringSet", "MemoryRateLimiter", "NullMetrics", "TurnableClock"]

V = TypeVar("V")


class TurnableClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class _NoSharedTier(SharedTier[V], Generic[V]):
    """The shared tier of a process that shares with nobody: it holds nothing and tells nobody."""

    stores = False
    away = False

    def encode(self, key: Key, value: V, ttl: float, tags: Sequence[str]) -> Encoded:
        return _NotEncoded()

    async def read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> Mapping[Key, Lookup[V]]:
        return {}

    async def changed(self, seen: Mapping[Key, object]) -> AbstractSet[Key]:
        return set()

    async def store(self, loaded: Mapping[Key, tuple[Encoded, object]]) -> AbstractSet[Key]:
        return set()

    async def write(self, key: Key, encoded: Encoded) -> None: ...

    async def remove(self, keys: Sequence[Key]) -> None: ...

    async def expire(self, keys: Sequence[Key]) -> None: ...

    async def remove_tags(self, tags: Sequence[str]) -> None: ...

    async def clear(self) -> None: ...

    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease: float) -> Mapping[Key, float]:
        return dict.fromkeys(keys, 0.0)

    async def unlock(self, keys: Sequence[Key], token: str) -> None: ...


class NullMetrics(CacheMetrics):
    """Metrics that nobody reads: the null twin of the port."""

    def tally(self, name: str, *labels: str) -> Tally:
        """Return a count of its own."""
        return Tally()

    def seconds(self, name: str, *labels: str) -> Observe:
        """Return what forgets."""
        return lambda _: None

    def watch(self, name: str, read: Read, *labels: str) -> None:
        """Read nothing."""


class _NotEncoded:
    fits = True


class _AlwaysLive:
    live = True
    live_until = inf


class MemoryCacheManager(CacheManager):
    """Names caches by the same policies as the real manager; `clock` turns for all of them.

    Lives are exact, without jitter, and nothing is ever evicted. Factories' time-outs run on the real clock.
    """

    def __init__(self, policies: Mapping[str, CachePolicy] | None = None) -> None:
        self.clock = TurnableClock()
        self._policies = {**DEFAULT_POLICIES, **(policies or {})}
        self._caches: dict[str, TieredCache[Any]] = {}
        self._sets: dict[str, MemoryExpiringSet] = {}

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

    def expiring_set(self, name: str, *, source: Source | None = None) -> "MemoryExpiringSet":
        """Return the set of a name, always the same one."""
        check_name(name)
        made = self._sets.get(name)
        if made is None:
            made = self._sets[name] = MemoryExpiringSet(self.clock, source=source)
        elif source not in {None, made.source}:
            raise ValueError(f"the set {name!r} has another source")
        return made

    async def ping(self) -> float:
        """Return at once."""
        return 0.0

    async def __aenter__(self) -> Self:
        for made in self._sets.values():
            await made.rebuild()
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
            shared=_NoSharedTier(),
            channel=_AlwaysLive(),
            recovery=RecoveryQueue(lambda: None),
            lease=policy.hard_timeout,
            strict=False,
            metrics=NullMetrics(),
        )


class MemoryExpiringSet(ExpiringSet):
    """A set in a dictionary; it is read from its source by the first who asks, and again by `rebuild`."""

    def __init__(self, clock: TurnableClock | None = None, *, source: Source | None = None) -> None:
        self.clock = clock or TurnableClock()
        self.source = source
        self._deadlines: dict[str, float] = {}
        self._read = source is None

    @property
    def live(self) -> bool:
        """Whether the source has been read."""
        return self._read

    async def rebuild(self) -> None:
        """Read the source, as at a start or when Redis came back empty."""
        if self.source is not None:
            for member, left in ttls_of(await self.source()).items():
                self._keep(member, left)
        self._read = True

    async def add(self, *members: str, ttl: float) -> None:
        """Keep members for so long, or longer if they were."""
        check_ttl(ttl)
        for member in members:
            check_member(member)
        for member in members:
            self._keep(member, ttl)

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and self.clock.seconds < self._deadlines.get(member, 0)

    async def contains(self, member: str) -> bool:
        """Tell whether it is a member, reading the source first if nobody has."""
        if not self._read:
            await self.rebuild()
        return member in self

    def _keep(self, member: str, ttl: float) -> None:
        self._deadlines[member] = max(self._deadlines.get(member, 0), self.clock.seconds + ttl)


class MemoryRateLimiter(RateLimiter):
    """The same arithmetic in memory; with `away` it decides as the real one without Redis."""

    def __init__(self, clock: TurnableClock | None = None) -> None:
        self.clock = clock or TurnableClock()
        self.away = False
        self._buckets = Buckets(most=10_000)

    async def hit(self, policy: RatePolicy, key: Key, cost: int = 1) -> RateDecision:
        """Count a request, unless it may not pass."""
        _, decision = await self.hit_all([(policy, key)], cost)
        return decision

    async def hit_all(self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1) -> tuple[RatePolicy, RateDecision]:
        """Count a request under several budgets, unless one of them refuses it."""
        check_hits(hits, cost)
        budgets = [(policy, bucket_name(policy, key)) for policy, key in hits]
        now = round(self.clock.seconds * 1_000_000)
        if self.away:
            decisions = decide_all_locally(budgets, self._buckets, cost, now)
        else:
            grants = self._buckets.take_all(budgets, cost, now)
            decisions = [grant.decision(policy) for (policy, _), grant in zip(hits, grants, strict=True)]
        return decisive(zip((policy for policy, _ in hits), decisions, strict=True))

    async def peek(self, policy: RatePolicy, key: Key) -> RateDecision:
        """Tell what a request would be told, and count nothing."""
        return self._take(policy, key, 0)

    async def reset(self, policy: RatePolicy, key: Key) -> None:
        """Begin anew."""
        self._buckets.forget(bucket_name(policy, key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep what is counted: the fake may be entered again."""

    def _take(self, policy: RatePolicy, key: Key, need: int) -> RateDecision:
        name, now = bucket_name(policy, key), round(self.clock.seconds * 1_000_000)
        if self.away:
            return decide_locally(policy, self._buckets, name, need, now)
        return self._buckets.take(policy, name, need, now).decision(policy)

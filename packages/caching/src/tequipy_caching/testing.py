"""In-memory fakes of the cache manager, the expiring set and the rate limiter, with a clock that tests control."""

# ruff: noqa: ARG002 -- fakes ignore some arguments

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tequipy_caching._ports import CacheHealth, CacheManager
from tequipy_caching.cache.keys import Key, check_name
from tequipy_caching.cache.local_store import Memory
from tequipy_caching.cache.metrics import CacheMetrics, Observe, Read, Tally
from tequipy_caching.cache.policies import DEFAULT_POLICIES, CachePolicy, check_ttl, policy_of
from tequipy_caching.cache.ports import Cache
from tequipy_caching.cache.recovery import RecoveryQueue
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.cache.tiers import Encoded, Lookup, SharedTier
from tequipy_caching.expiring_set.ports import ExpiringSet, Source, check_member, ttls_of
from tequipy_caching.rate_limit.gcra import Buckets, bucket_name, decide_all_locally, decide_locally
from tequipy_caching.rate_limit.policies import RateDecision, RateLimiter, RatePolicy, check_hits, decisive

__all__ = ["MemoryCacheManager", "MemoryExpiringSet", "MemoryRateLimiter", "TurnableClock"]

V = TypeVar("V")


class TurnableClock:
    """A clock in seconds that advances only when a test calls `advance`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.seconds += seconds


class _NoSharedTier(SharedTier[V], Generic[V]):
    """A shared tier without other processes: it stores and publishes nothing."""

    stores = False
    unreachable = False

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

    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease_ttl: float) -> Mapping[Key, float]:
        return dict.fromkeys(keys, 0.0)

    async def unlock(self, keys: Sequence[Key], token: str) -> None: ...


class NullMetrics(CacheMetrics):
    """Metrics that are discarded."""

    def tally(self, name: str, *labels: str) -> Tally:
        """Return a counter that no metrics system reads."""
        return Tally()

    def seconds(self, name: str, *labels: str) -> Observe:
        """Return a function that discards durations."""
        return lambda _: None

    def watch(self, name: str, read: Read, *labels: str) -> None:
        """Ignore the gauge."""


class _NotEncoded:
    fits = True


class _AlwaysLive:
    live = True
    live_until = inf


class MemoryCacheManager(CacheManager):
    """Fake of the cache manager, with the same policies; its caches and sets use `clock`.

    Ttls have no jitter, and nothing is evicted. The timeouts of factories use the real clock.
    """

    def __init__(self, policies: Mapping[str, CachePolicy] | None = None) -> None:
        self.clock = TurnableClock()
        self._policies = {**DEFAULT_POLICIES, **(policies or {})}
        self._caches: dict[str, TieredCache[Any]] = {}
        self._sets: dict[str, MemoryExpiringSet] = {}

    def cache(self, name: str, type_: Any) -> Cache[Any]:  # noqa: ANN401 -- the port's overloads have the types
        """Return the cache of this name; the first call creates it."""
        cache = self._caches.get(name)
        if cache is None:
            cache = self._caches[name] = self._build(name, type_, policy_of(name, self._policies))
        elif cache.type != type_:
            raise ValueError(f"the cache {name!r} holds {cache.type}, not {type_}")
        return cache

    def health(self) -> CacheHealth:
        """Return that Redis and the channel work."""
        return CacheHealth(l2="up", backplane="live", recovery_queue=0)

    def expiring_set(self, name: str, *, source: Source | None = None) -> "MemoryExpiringSet":
        """Return the set of this name; the first call creates it."""
        check_name(name)
        made = self._sets.get(name)
        if made is None:
            made = self._sets[name] = MemoryExpiringSet(self.clock, source=source)
        elif source not in {None, made.source}:
            raise ValueError(f"the set {name!r} has another source")
        return made

    async def ping(self) -> float:
        """Return 0 at once."""
        return 0.0

    async def __aenter__(self) -> Self:
        for made in self._sets.values():
            await made.rebuild()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep all values, so that the fake can be entered again."""

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
            lease_ttl=policy.hard_timeout,
            strict=False,
            metrics=NullMetrics(),
        )


class MemoryExpiringSet(ExpiringSet):
    """Fake of the expiring set; the first `contains` reads the source, and `rebuild` reads it again."""

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
        """Read the source, like the real set at a start or after Redis restarted empty."""
        if self.source is not None:
            for member, left in ttls_of(await self.source()).items():
                self._keep(member, left)
        self._read = True

    async def add(self, *members: str, ttl: float) -> None:
        """Add members for `ttl` seconds, or keep their later expiry."""
        check_ttl(ttl)
        for member in members:
            check_member(member)
        for member in members:
            self._keep(member, ttl)

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and self.clock.seconds < self._deadlines.get(member, 0)

    async def contains_any(self, members: Collection[str]) -> bool:
        """Return whether one of these is a member; the first call reads the source."""
        if not self._read:
            await self.rebuild()
        return any(member in self for member in members)

    def _keep(self, member: str, ttl: float) -> None:
        self._deadlines[member] = max(self._deadlines.get(member, 0), self.clock.seconds + ttl)


class MemoryRateLimiter(RateLimiter):
    """Fake of the rate limiter, with the same arithmetic; `unreachable` makes it decide as without Redis."""

    def __init__(self, clock: TurnableClock | None = None) -> None:
        self.clock = clock or TurnableClock()
        self.unreachable = False
        self._buckets = Buckets(most=10_000)

    async def hit(self, policy: RatePolicy, key: Key, cost: int = 1) -> RateDecision:
        """Count a request if it may pass."""
        _, decision = await self.hit_all([(policy, key)], cost)
        return decision

    async def hit_all(self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1) -> tuple[RatePolicy, RateDecision]:
        """Count a request under several budgets if all of them let it pass."""
        check_hits(hits, cost)
        budgets = [(policy, bucket_name(policy, key)) for policy, key in hits]
        now = self._now()
        if self.unreachable:
            decisions = decide_all_locally(budgets, self._buckets, cost, now)
        else:
            grants = self._buckets.take_all(budgets, cost, now)
            decisions = [grant.decision(policy) for (policy, _), grant in zip(hits, grants, strict=True)]
        return decisive(zip((policy for policy, _ in hits), decisions, strict=True))

    async def peek(self, policy: RatePolicy, key: Key) -> RateDecision:
        """Return the decision that a request would get, without counting it."""
        name, now = bucket_name(policy, key), self._now()
        if self.unreachable:
            return decide_locally(policy, self._buckets, name, 0, now)
        return self._buckets.take(policy, name, 0, now).decision(policy)

    async def reset(self, policy: RatePolicy, key: Key) -> None:
        """Reset a bucket."""
        self._buckets.forget(bucket_name(policy, key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep all buckets, so that the fake can be entered again."""

    def _now(self) -> int:
        """Return the time in microseconds."""
        return round(self.clock.seconds * 1_000_000)

"""The cache manager: all caches of a process, on one connection pool and one channel."""

from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self

from tequipy_caching._ports import CacheHealth, CacheManager
from tequipy_caching.cache.local_store import BoundedEntries, Memory
from tequipy_caching.cache.metrics import CacheMetrics
from tequipy_caching.cache.policies import CachePolicy, policy_of
from tequipy_caching.cache.ports import Cache
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.expiring_set.ports import ExpiringSet, Source
from tequipy_caching.expiring_set.sets import ExpiringSets
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.messages import CacheListener, topic_of
from tequipy_caching.redis.tier import RedisTier


class TieredCacheManager(CacheManager):
    """Creates each cache once. With `strict`, callers get `CacheUnavailable` instead of going on without Redis.

    A load lease ends `lease_margin` seconds after the `hard_timeout` of its load, which is the time for the store.
    """

    def __init__(
        self,
        link: RedisLink,
        policies: Mapping[str, CachePolicy],
        *,
        tombstone_ttl: float,
        lease_margin: float,
        strict: bool,
        metrics: CacheMetrics,
    ) -> None:
        self.link = link
        self.backplane = Backplane(link, metrics=metrics)
        self._sets = ExpiringSets(link, self.backplane)
        self._policies = policies
        self._tombstone_ttl = tombstone_ttl
        self._lease_margin = lease_margin
        self._strict = strict
        self._metrics = metrics
        self._caches: dict[str, TieredCache[Any]] = {}

    def cache(self, name: str, type_: Any) -> Cache[Any]:  # noqa: ANN401 -- the port's overloads say it
        """Return the cache with this name; the same object at each call."""
        policy = policy_of(name, self._policies)
        cache = self._caches.get(name)
        if cache is None:
            cache = self._caches[name] = self._build(name, type_, policy)
            self.backplane.listen(topic_of(name), CacheListener(cache))
        elif cache.type != type_:
            raise ValueError(f"the cache {name!r} holds {cache.type}, not {type_}")
        return cache

    def health(self) -> CacheHealth:
        """Return the state of the connection to Redis, without asking Redis."""
        breaker, refusal = self.link.breaker, self.link.writes.refusal
        l2: Literal["up", "open", "refusing", "down"] = "up" if refusal is None else "refusing"
        if breaker.open:
            l2 = "down" if breaker.probe_failed else "open"
        return CacheHealth(
            l2=l2,
            backplane="live" if self.backplane.live else "deaf",
            recovery_queue=len(self.link.recovery),
            reason=refusal if l2 == "refusing" else None,
        )

    def expiring_set(self, name: str, *, source: Source | None = None) -> ExpiringSet:
        """Return the set with this name; the same object at each call."""
        return self._sets.named(name, source)

    async def ping(self) -> float:
        """Return the seconds that Redis took to answer; raise `CacheUnavailable` if it does not answer."""
        return await self.link.ping()

    async def __aenter__(self) -> Self:
        self.link.loop_binding.check()
        self.backplane.start()
        self._sets.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._sets.stop()
        await self.backplane.stop()
        for cache in self._caches.values():
            await cache.end()
        await self.link.close()

    def _build(self, name: str, type_: Any, policy: CachePolicy) -> TieredCache[Any]:  # noqa: ANN401 -- as above
        entries: BoundedEntries[Any] = BoundedEntries(
            policy, monotonic, self._metrics.tally("cache_l1_evictions", name)
        )
        self._metrics.watch("cache_l1_size", lambda: len(entries), name)
        return TieredCache(
            name,
            type_,
            policy,
            memory=Memory(policy, entries, monotonic),
            shared=RedisTier(
                name,
                type_,
                policy,
                link=self.link,
                backplane=self.backplane,
                tombstone_ttl=self._tombstone_ttl,
                metrics=self._metrics,
            ),
            channel=self.backplane,
            recovery=self.link.recovery,
            lease_ttl=policy.hard_timeout + self._lease_margin,
            strict=self._strict,
            metrics=self._metrics,
        )

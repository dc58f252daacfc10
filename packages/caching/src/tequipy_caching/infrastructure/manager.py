"""All caches of a process, on one connection pool and one invalidation channel."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from tequipy_caching.domain.metrics import CacheMetrics
from tequipy_caching.domain.policies import CachePolicy, policy_of
from tequipy_caching.domain.ports import Cache, CacheManager
from tequipy_caching.infrastructure.backplane import Backplane
from tequipy_caching.infrastructure.redis import RedisLink
from tequipy_caching.infrastructure.shared import RedisTier
from tequipy_caching.infrastructure.tiered import TieredCache

V = TypeVar("V")


class TieredCacheManager(CacheManager):
    """Makes each cache once; `strict` raises `CacheUnavailable` where callers would otherwise go on without Redis."""

    def __init__(
        self,
        link: RedisLink,
        policies: Mapping[str, CachePolicy],
        *,
        tombstone_ttl: float,
        strict: bool,
        metrics: CacheMetrics,
    ) -> None:
        self.link = link
        self.backplane = Backplane(link, metrics=metrics)
        self._shared = RedisTier(link, tombstone_ttl=tombstone_ttl)
        self._policies = policies
        self._strict = strict
        self._metrics = metrics
        self._caches: dict[str, TieredCache[Any]] = {}

    def cache(self, name: str, type_: type[V]) -> Cache[V]:
        """Return the cache of a name, always the same one."""
        policy = policy_of(name, self._policies)
        cache = self._caches.get(name)
        if cache is None:
            cache = self._caches[name] = TieredCache(
                name,
                type_,
                policy,
                redis=self._shared,
                backplane=self.backplane,
                strict=self._strict,
                metrics=self._metrics,
            )
            self.backplane.listen(cache.topic, cache)
        elif cache.type != type_:
            raise ValueError(f"the cache {name!r} holds {cache.type}, not {type_}")
        return cache

    async def ping(self) -> float:
        """Return the seconds that Redis took to answer; raises `CacheUnavailable`."""
        return await self.link.ping()

    async def __aenter__(self) -> Self:
        self.backplane.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.backplane.stop()
        await self.link.close()
        for cache in self._caches.values():
            cache.miss()

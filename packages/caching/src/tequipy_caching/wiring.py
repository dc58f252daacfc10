"""The settings of caches and limiters, and the functions that build them; only apps read the environment.

The Redis client is imported with the first cache or limiter, because the worker's scheduler only reads the settings.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from prometheus_client import CollectorRegistry
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from tequipy_caching._ports import CacheManager
from tequipy_caching.cache.keys import NAME_PATTERN
from tequipy_caching.cache.policies import DEFAULT_POLICIES, CachePolicy
from tequipy_caching.cache.prometheus import PrometheusCacheMetrics
from tequipy_caching.rate_limit.metrics import DecisionCounts
from tequipy_caching.rate_limit.policies import RateLimiter
from tequipy_caching.redis.url import INSECURE, parse_redis_url

__all__ = ["CacheSettings", "LimiterSettings", "build_cache", "build_rate_limiter"]

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
"""The prefix of all keys, or the name of a cache."""


def _check_url(url: SecretStr) -> SecretStr:
    parse_redis_url(url.get_secret_value())
    return url


RedisUrlText = Annotated[SecretStr, AfterValidator(_check_url)]
"""`redis://user:password@host:port/database`; `rediss://` verifies certificate and host name, and accepts the options
`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (PEM files), `ssl_check_hostname=false` and `ssl_cert_reqs=none`.
"""


class CacheSettings(BaseModel):
    """The address of Redis and the policies of the caches; times in seconds.

    An app subclasses it and lists in `declared` the policies of its features, because only the app knows all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    declared: ClassVar[Mapping[str, CachePolicy]] = {}
    production_rules: ClassVar[Mapping[str, str]] = {"url": INSECURE}

    url: RedisUrlText
    """`redis://user:password@host:port/database`, or `rediss://`, which verifies certificate and host name and accepts
    the options `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (PEM files), `ssl_check_hostname` and `ssl_cert_reqs`."""
    prefix: Name = "tequipy"
    """The prefix of every key, so that applications can share a Redis server."""
    policies: Mapping[Name, CachePolicy] = Field(default_factory=dict)
    """Policies by the names of their caches; they replace built-in and declared policies of the same names."""
    l2_timeout: float = Field(default=0.25, gt=0, allow_inf_nan=False)
    """Seconds that a call waits for Redis at most."""
    tombstone_ttl: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds for which a tombstone keeps loads that began before it from storing their values. None means a second
    more than the slowest load: the longest `hard_timeout` of a policy plus `l2_timeout`, which it must exceed."""
    on_error: Literal["degrade", "raise"] = "degrade"
    """Without Redis: continue with memory and loads ("degrade"), or raise `CacheUnavailable`."""

    @property
    def all_policies(self) -> Mapping[str, CachePolicy]:
        """The built-in and declared policies, replaced or extended by the given ones."""
        return {**DEFAULT_POLICIES, **self.declared, **self.policies}

    @property
    def slowest_load(self) -> float:
        """The longest time between the lookup of a load in Redis and its store there."""
        return max(policy.hard_timeout for policy in self.all_policies.values()) + self.l2_timeout

    def production_faults(self) -> Iterator[tuple[str, str]]:
        """Return the settings that production refuses: a connection that does not verify the server."""
        return _url_faults(self.url)

    @model_validator(mode="after")
    def _check_tombstone_ttl(self) -> Self:
        if self.tombstone_ttl is not None and self.tombstone_ttl <= self.slowest_load:
            raise PydanticCustomError(
                "tombstone_ttl",
                "tombstone_ttl should be greater than {limit}, the longest hard_timeout + l2_timeout",
                {"limit": f"{self.slowest_load:g}"},
            )
        return self


class LimiterSettings(BaseModel):
    """The address of the rate limiter's Redis; it should not evict keys, so it can differ from the cache's."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {"url": INSECURE}

    url: RedisUrlText | None = None
    """A URL like that of the cache; None means the cache's own."""

    def production_faults(self) -> Iterator[tuple[str, str]]:
        """Return the settings that production refuses: a connection that does not verify the server."""
        return _url_faults(self.url)


def _url_faults(url: SecretStr | None) -> Iterator[tuple[str, str]]:
    if url is not None and not parse_redis_url(url.get_secret_value()).verified:
        yield "url", INSECURE


def build_cache(settings: CacheSettings, *, registry: CollectorRegistry | None = None) -> CacheManager:
    """Return the cache manager; it connects when it is entered, and keeps working without Redis."""
    from tequipy_caching._manager import TieredCacheManager  # noqa: PLC0415 -- as the module says
    from tequipy_caching.redis.link import RedisLink  # noqa: PLC0415 -- as the module says

    metrics = PrometheusCacheMetrics(registry)
    link = RedisLink(
        settings.url.get_secret_value(),
        prefix=settings.prefix,
        timeout=settings.l2_timeout,
        metrics=metrics,
    )
    return TieredCacheManager(
        link,
        settings.all_policies,
        tombstone_ttl=settings.tombstone_ttl or settings.slowest_load + 1,
        lease_margin=settings.l2_timeout,
        strict=settings.on_error == "raise",
        metrics=metrics,
    )


def build_rate_limiter(
    settings: CacheSettings,
    limiter: LimiterSettings | None = None,
    *,
    registry: CollectorRegistry | None = None,
) -> RateLimiter:
    """Return the rate limiter, which has its own connections and channel; denials are kept by policy `rate_limits`."""
    from tequipy_caching.rate_limit.limiter import RedisRateLimiter  # noqa: PLC0415 -- as the module says
    from tequipy_caching.redis.backplane import Backplane  # noqa: PLC0415 -- as the module says
    from tequipy_caching.redis.link import RedisLink  # noqa: PLC0415 -- as the module says

    url = (limiter and limiter.url) or settings.url
    metrics = PrometheusCacheMetrics(registry, prefix="ratelimit")
    link = RedisLink(
        url.get_secret_value(),
        prefix=f"{settings.prefix}:rate",
        timeout=settings.l2_timeout,
        metrics=metrics,
        name="limiter",
    )
    return RedisRateLimiter(
        link,
        settings.all_policies["rate_limits"],
        backplane=Backplane(link, metrics=metrics),
        counts=DecisionCounts(registry),
    )

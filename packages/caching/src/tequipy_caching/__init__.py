"""A tiered cache (the memory of each process, and Redis for all of them) and a rate limiter.

This module imports the standard library only. The other public modules are `wiring` (settings, `build_cache` and
`build_rate_limiter`), `api` (rate limits over HTTP), `testing` (fakes) and `conformance` (a pytest plugin).
"""

from tequipy_caching._exceptions import (
    CacheError,
    CacheUnavailable,
    LoadTimeout,
    RecursiveLoad,
    UnknownCache,
    WrongEventLoop,
)
from tequipy_caching._ports import CacheHealth, CacheManager
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.ports import MISSING, Cache, Missing
from tequipy_caching.expiring_set.ports import ExpiringSet, Source
from tequipy_caching.rate_limit.policies import RateDecision, RateLimiter, RatePolicy

__all__ = [
    "MISSING",
    "Cache",
    "CacheError",
    "CacheHealth",
    "CacheManager",
    "CachePolicy",
    "CacheUnavailable",
    "ExpiringSet",
    "Key",
    "LoadTimeout",
    "Missing",
    "RateDecision",
    "RateLimiter",
    "RatePolicy",
    "RecursiveLoad",
    "Source",
    "UnknownCache",
    "WrongEventLoop",
]

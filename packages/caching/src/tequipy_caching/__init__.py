"""A tiered cache (the memory of each process, and Redis for all of them) and a rate limiter.

This module imports the standard library only. The other public modules are `wiring` (settings, `build_cache` and
`build_rate_limiter`), `api` (rate limits over HTTP), `testing` (fakes) and `conformance` (a pytest plugin).
"""

from tequipy_caching.domain.exceptions import (
    CacheError,
    CacheUnavailable,
    LoadTimeout,
    RecursiveLoad,
    UnknownCache,
    WrongEventLoop,
)
from tequipy_caching.domain.expiring_set import ExpiringSet, Source
from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.limits import RateDecision, RateLimiter, RatePolicy
from tequipy_caching.domain.policies import CachePolicy
from tequipy_caching.domain.ports import MISSING, Cache, CacheHealth, CacheManager, Missing

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

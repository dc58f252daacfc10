"""A tiered cache: memory in each process, Redis behind all of them. This door is standard library only.

Doors beside this one: `wiring` (settings and `build_cache`) and `testing`.
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

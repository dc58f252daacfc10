"""How long and how much a cache keeps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from tequipy_caching.domain.exceptions import UnknownCache

MOST: Final = 100 * 365 * 86400
"""Of any number here: as a time a hundred years, which Redis can still count in milliseconds."""
_POSITIVE: Final = (
    "ttl",
    "l1_maxsize",
    "l1_ttl",
    "fail_safe_throttle",
    "soft_timeout",
    "hard_timeout",
    "max_value_bytes",
)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """The rules of one named cache; times in seconds, sizes in bytes. Raises `ValueError` that names every fault."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # read where settings come as JSON: a typing error is named

    ttl: float
    """How long a value lives."""
    l1_maxsize: int = 1000
    """How many values each process keeps."""
    l1_ttl: float | None = None
    """How long a process keeps a value at most; None: as long as it lives."""
    jitter: float = 0.1
    """A life is shortened by up to this share, so that what was stored together does not expire together."""
    fail_safe: float = 0
    """How long beyond its life a value stands in while it cannot be loaded anew."""
    fail_safe_throttle: float = 5
    """How long a value that stands in is served before a load is tried again."""
    soft_timeout: float | None = None
    """How long a caller waits before it takes the value that stands in, and the load goes on; None: to its end."""
    hard_timeout: float = 10
    """How long a load may take."""
    negative: Mapping[type[Exception], float] = field(default_factory=dict, hash=False)
    """Exceptions of factories, subclasses included, that each process keeps in the place of a value, and how long; that
    of a batch is kept for a single key only."""
    lock: Literal["process", "cluster"] = "process"
    """Who shares one load: the callers of a process, or those of all processes."""
    refresh_ahead: float | None = None
    """The share of a life after which a hit begins to load the value anew, in the background; None: never."""
    max_value_bytes: int = 1024 * 1024
    """A larger value is handed to its caller and not kept."""
    tiers: Literal["l1+l2", "l1", "l2"] = "l1+l2"
    """Memory of each process (l1), Redis (l2), or both."""

    def __post_init__(self) -> None:
        faults = "; ".join(self._faults())
        if faults:
            raise ValueError(faults)

    def _faults(self) -> Iterator[str]:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST:
                yield f"{name} must be greater than 0 and at most {MOST}"
        if not 0 <= self.jitter < 1:
            yield "jitter must be at least 0 and less than 1"
        if not 0 <= self.fail_safe <= MOST:
            yield f"fail_safe must be at least 0 and at most {MOST}"
        if self.refresh_ahead is not None and not 0 < self.refresh_ahead < 1:
            yield "refresh_ahead must be greater than 0 and less than 1"
        if not all(0 < seconds <= MOST for seconds in self.negative.values()):
            yield f"negative must be greater than 0 and at most {MOST} for each exception"
        if self.lock not in {"process", "cluster"}:
            yield 'lock must be "process" or "cluster"'
        if self.tiers not in {"l1+l2", "l1", "l2"}:
            yield 'tiers must be "l1+l2", "l1" or "l2"'

    def negative_ttl(self, error: Exception) -> float:
        """Return how long an exception is kept in the place of a value; 0: not at all."""
        return next((self.negative[kind] for kind in type(error).__mro__ if kind in self.negative), 0)


DEFAULT_POLICIES: Final[Mapping[str, CachePolicy]] = {
    "user_profile": CachePolicy(ttl=300, l1_maxsize=500),
    "rate_limits": CachePolicy(ttl=60, l1_maxsize=10_000),
    "config": CachePolicy(ttl=600, l1_maxsize=100, fail_safe=3600),
    "access_tokens": CachePolicy(ttl=930, l1_maxsize=10_000, tiers="l1"),
}
"""The caches that every manager has; given policies are merged over them."""


def policy_of(name: str, policies: Mapping[str, CachePolicy]) -> CachePolicy:
    """Return a cache's policy; raises `UnknownCache`, which names the ones that there are."""
    try:
        return policies[name]
    except KeyError:
        raise UnknownCache(f"no policy for the cache {name!r}: there are {', '.join(sorted(policies))}") from None


def check_ttl(ttl: float | None) -> None:
    """Raise `ValueError` for a life that is none, or longer than Redis could count; None is the policy's."""
    if ttl is not None and not 0 < ttl <= MOST:
        raise ValueError(f"ttl must be greater than 0 and at most {MOST}, in seconds")

"""The policies of caches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from tequipy_caching._exceptions import UnknownCache

MAX_VALUE: Final = 100 * 365 * 86400
"""The largest value of any field, and of any ttl: a hundred years, which Redis can represent in milliseconds."""
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
    """The settings of one named cache; times in seconds, sizes in bytes. Raises `ValueError` that names every fault."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # refuses settings with a misspelled field

    ttl: float
    """Seconds that a value lives; greater than 0, as all times here unless they say otherwise."""
    l1_maxsize: int = 1000
    """How many values each process keeps in memory; at least 1."""
    l1_ttl: float | None = None
    """Seconds that a process keeps a value in memory at most, greater than 0; None means until its ttl ends."""
    jitter: float = 0.1
    """The largest share by which a ttl is shortened at random, so that values stored together expire separately; at
    least 0 and less than 1."""
    fail_safe: float = 0
    """Seconds after its ttl for which a stale value may be served if a load fails; at least 0, which means never."""
    fail_safe_throttle: float = 5
    """Seconds that a stale value is served before the load is tried again; greater than 0."""
    soft_timeout: float | None = None
    """Seconds that a caller waits for a load before it gets the stale value and the load continues; greater than 0,
    None: no limit."""
    hard_timeout: float = 10
    """Seconds that a load may take at most; greater than 0."""
    negative: Mapping[type[Exception], float] = field(default_factory=dict, hash=False)
    """The exceptions of factories, subclasses included, that each process caches instead of a value, and their ttls. An
    exception of a batch is cached only if the batch has one key."""
    lock: Literal["process", "cluster"] = "process"
    """Which callers share one load: those of one process, or those of all processes."""
    refresh_ahead: float | None = None
    """The share of the ttl after which a hit starts to reload the value in the background; greater than 0 and less than
    1, None means never."""
    max_value_bytes: int = 1024 * 1024
    """The largest size in bytes, at least 1: a larger value is returned to the caller and not stored."""
    tiers: Literal["l1+l2", "l1", "l2"] = "l1+l2"
    """Where values are stored: in the memory of each process (l1), in Redis (l2), or both."""

    def __post_init__(self) -> None:
        faults = "; ".join(self._faults())
        if faults:
            raise ValueError(faults)

    def _faults(self) -> Iterator[str]:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_VALUE:
                yield f"{name} must be greater than 0 and at most {MAX_VALUE}"
        if not 0 <= self.jitter < 1:
            yield "jitter must be at least 0 and less than 1"
        if not 0 <= self.fail_safe <= MAX_VALUE:
            yield f"fail_safe must be at least 0 and at most {MAX_VALUE}"
        if self.refresh_ahead is not None and not 0 < self.refresh_ahead < 1:
            yield "refresh_ahead must be greater than 0 and less than 1"
        if not all(0 < seconds <= MAX_VALUE for seconds in self.negative.values()):
            yield f"negative must be greater than 0 and at most {MAX_VALUE} for each exception"
        if self.lock not in {"process", "cluster"}:
            yield 'lock must be "process" or "cluster"'
        if self.tiers not in {"l1+l2", "l1", "l2"}:
            yield 'tiers must be "l1+l2", "l1" or "l2"'

    def negative_ttl(self, error: Exception) -> float:
        """Return for how long an exception is cached, by its nearest class in `negative`; 0 means not at all."""
        return next((self.negative[kind] for kind in type(error).__mro__ if kind in self.negative), 0)


DEFAULT_POLICIES: Final[Mapping[str, CachePolicy]] = {
    "rate_limits": CachePolicy(ttl=60, l1_maxsize=10_000),
    "config": CachePolicy(ttl=600, l1_maxsize=100, fail_safe=3600),
}
"""The policies that every manager has, unless the settings replace them; features declare those of their caches."""


def policy_of(name: str, policies: Mapping[str, CachePolicy]) -> CachePolicy:
    """Return the policy of a cache; raises `UnknownCache`, which lists the existing names."""
    try:
        return policies[name]
    except KeyError:
        raise UnknownCache(f"no policy for the cache {name!r}: there are {', '.join(sorted(policies))}") from None


def check_ttl(ttl: float | None) -> None:
    """Raise `ValueError` for a ttl that is not positive or above `MAX_VALUE`; None means the policy's ttl."""
    if ttl is not None and not 0 < ttl <= MAX_VALUE:
        raise ValueError(f"ttl must be greater than 0 and at most {MAX_VALUE}, in seconds")

"""The policies, the decisions and the port of the rate limiter."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import gcd, inf
from types import TracebackType
from typing import ClassVar, Final, Literal, NamedTuple, Self

from tequipy_caching.cache.keys import NAME_RULE, Key, is_name

_SHORTEST: Final = 0.000_001
EXACT: Final = 2**52
"""The largest integer for which Lua's arithmetic (IEEE 754 doubles) is exact, division included."""


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """Allows `limit` requests per `period` seconds, and `burst` at once. Raises `ValueError` that names every fault.

    In any interval of t seconds at most `burst + t * limit / period` requests pass, over all processes, as long as
    Redis is reachable.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # refuses settings with a misspelled field

    name: str
    """A part of the keys in Redis, and a label of the metrics."""
    limit: int
    period: float
    """Seconds, rounded to microseconds."""
    burst: int | None = None
    """How many requests may pass at once; None means `limit`."""
    lease: int = 0
    """How many requests a process may take from the budget in advance, so that most requests need no round trip to
    Redis. Choose it well below `burst` divided by the number of processes; 0 if each request must be counted."""
    on_store_error: Literal["local", "allow", "deny"] = "local"
    """Without Redis: this process applies the limit alone ("local"), every request passes, or none passes."""

    increment: int = field(init=False, repr=False, compare=False)
    """By how much one request raises the level of the bucket, in this policy's units."""
    leak_rate: int = field(init=False, repr=False, compare=False)
    """By how much the level falls per microsecond, in the same units."""

    def __post_init__(self) -> None:
        period = round(self.period * 1_000_000) if _SHORTEST <= self.period < inf else 0
        shared = gcd(self.limit, period) or 1
        object.__setattr__(self, "increment", period // shared)
        object.__setattr__(self, "leak_rate", self.limit // shared)
        faults = "; ".join(self._faults())
        if faults:
            raise ValueError(faults)

    @property
    def capacity(self) -> int:
        """The burst, or the limit if the policy has no burst."""
        return self.limit if self.burst is None else self.burst

    def check_cost(self, cost: int) -> None:
        """Raise `ValueError` for a cost below 1, or above the burst, which could never pass."""
        if not 1 <= cost <= self.capacity:
            raise ValueError(f"cost must be 1 to {self.capacity}, the burst of the policy {self.name!r}, not {cost}")

    def _faults(self) -> Iterator[str]:
        if not is_name(self.name):
            yield NAME_RULE
        if self.limit < 1:
            yield "limit must be at least 1"
        if self.capacity < 1:
            yield "burst must be at least 1"
        if not self.increment:
            yield f"period must be at least {_SHORTEST:f}, in seconds"
        elif self.capacity * self.increment > EXACT:
            yield "limit and period must be rounder to be counted exactly"
        if not 0 <= self.lease <= self.capacity:
            yield "lease must be at least 0 and at most burst"
        if self.on_store_error not in {"local", "allow", "deny"}:
            yield 'on_store_error must be "local", "allow" or "deny"'


class RateDecision(NamedTuple):
    """Whether a request may pass, and the remaining budget; times in seconds."""

    # A named tuple, because one is created per request and a frozen dataclass takes three times as long.
    allowed: bool
    limit: int
    """The limit of the policy."""
    remaining: int
    """How many further requests may pass now."""
    retry_after: float
    """When the request may pass, if no other request comes first; 0 if it was allowed."""
    reset_after: float
    """When the whole burst is available again, if no request comes meanwhile."""
    degraded: bool = False
    """Whether it was decided without Redis, by the policy's `on_store_error`."""


def decisive(decisions: Iterable[tuple[RatePolicy, RateDecision]]) -> tuple[RatePolicy, RateDecision]:
    """Return the decision that counts among those of several policies about one request."""
    return min(decisions, key=lambda each: (each[1].allowed, -each[1].retry_after, each[1].remaining))


def check_hits(hits: Sequence[tuple[RatePolicy, Key]], cost: int) -> None:
    """Raise `ValueError` if there is no budget, or if the cost could never pass one of them."""
    if not hits:
        raise ValueError("at least one budget is needed")
    for policy, _ in hits:
        policy.check_cost(cost)


class RateLimiter(ABC):
    """Counts requests over all processes; an async context manager that starts and keeps working without Redis.

    `key` identifies whose requests are counted, such as a client address or an account. Every method raises `TypeError`
    for a key of another type; none raises when Redis is unreachable.
    """

    @abstractmethod
    async def hit(self, policy: RatePolicy, key: Key, cost: int = 1) -> RateDecision:
        """Count a request if it may pass; a refused request uses up no budget.

        Raises `ValueError` for a cost below 1 or above the burst.
        """

    @abstractmethod
    async def hit_all(self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1) -> tuple[RatePolicy, RateDecision]:
        """Count a request under several different budgets if all of them let it pass, otherwise under none.

        Returns the decision that counts, with its policy: the refusal with the longest `retry_after`, or without a
        refusal the decision with the least remaining; of equal ones the first. Raises `ValueError` like `hit`, and if
        there is no budget.
        """

    def try_hit_all(
        self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1
    ) -> tuple[RatePolicy, RateDecision] | None:
        """Return what `hit_all` would, if this process can let the request pass at once because it holds leases.

        Otherwise return None and count nothing: `hit_all` decides then.
        """
        del hits, cost
        return None

    @abstractmethod
    async def peek(self, policy: RatePolicy, key: Key) -> RateDecision:
        """Return the decision that a request would get now, without counting it."""

    @abstractmethod
    async def reset(self, policy: RatePolicy, key: Key) -> None:
        """Reset a bucket for all processes; leases that processes hold may still be used."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start to receive resets of other processes."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop to receive resets and close all connections."""

"""How often something may happen: the policies, the decisions and the port of the rate limiter."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import gcd, inf
from types import TracebackType
from typing import ClassVar, Final, Literal, Self

from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.names import NAME_RULE, is_name

_SHORTEST: Final = 0.000_001
EXACT: Final = 2**52
"""Up to here the numbers of a Lua script are exact, their quotients too."""


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """`limit` requests in `period` seconds, evenly, after a first `burst`. Raises `ValueError` that names every fault.

    In any interval of t seconds at most `burst + t * limit / period` pass, over all processes, while Redis is there.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # read where settings come as JSON: a typing error is named

    name: str
    """Part of the keys in Redis and a label of the metrics."""
    limit: int
    period: float
    """Seconds, to the microsecond."""
    burst: int | None = None
    """How many may come at once; None: `limit`."""
    lease: int = 0
    """How many requests a process may take of the budget at once, deducted before it uses them, so that most cost
    nothing. Well below `burst` divided by the number of processes; 0 for policies that must count each one."""
    on_store_error: Literal["local", "allow", "deny"] = "local"
    """With Redis away: this process keeps the bound for itself alone, or all may pass, or none."""

    increment: int = field(init=False, repr=False, compare=False)
    """How far one request raises the level of what is used, in whole units of this policy."""
    leak_rate: int = field(init=False, repr=False, compare=False)
    """How far the level falls in a microsecond."""

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
        """The burst, given or not."""
        return self.limit if self.burst is None else self.burst

    def check_cost(self, cost: int) -> None:
        """Raise `ValueError` for a cost that is none or that could never pass."""
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


@dataclass(frozen=True, slots=True)
class RateDecision:
    """Whether a request may pass, and what is left; times in seconds."""

    allowed: bool
    limit: int
    """The policy's."""
    remaining: int
    """How many may pass at once now."""
    retry_after: float
    """When to try again, if others do not come first; 0 when allowed."""
    reset_after: float
    """When the whole burst is there again, if nobody comes meanwhile."""
    degraded: bool = False
    """Decided without Redis: by the policy's `on_store_error`."""


def decisive(decisions: Iterable[tuple[RatePolicy, RateDecision]]) -> tuple[RatePolicy, RateDecision]:
    """Return which of several decisions about one request counts."""
    return min(decisions, key=lambda each: (each[1].allowed, -each[1].retry_after, each[1].remaining))


def check_hits(hits: Sequence[tuple[RatePolicy, Key]], cost: int) -> None:
    """Raise `ValueError` for no budget, and for a cost that one of them could never let pass."""
    if not hits:
        raise ValueError("at least one budget is needed")
    for policy, _ in hits:
        policy.check_cost(cost)


class RateLimiter(ABC):
    """Counts requests for all processes; an async context manager that starts, and goes on, without Redis.

    `key` says whom a policy counts: a client's address, an account. Every method raises `TypeError` for one that is no
    key, and none raises for an absent Redis.
    """

    @abstractmethod
    async def hit(self, policy: RatePolicy, key: Key, cost: int = 1) -> RateDecision:
        """Count a request, unless it may not pass; a refused one costs nothing.

        Raises `ValueError` for a cost below 1 or above the burst.
        """

    @abstractmethod
    async def hit_all(self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1) -> tuple[RatePolicy, RateDecision]:
        """Count a request under several different budgets at once, unless one of them refuses it: then under none.

        Returns the decision that counts, and whose it is: of those that refuse the one that does so longest, else the
        one with the least remaining, the first of equals. Raises `ValueError` as `hit`, and for no budget at all.
        """

    @abstractmethod
    async def peek(self, policy: RatePolicy, key: Key) -> RateDecision:
        """Tell what a request would be told now, and count nothing."""

    @abstractmethod
    async def reset(self, policy: RatePolicy, key: Key) -> None:
        """Forget what was counted, here and in every process; what a process has leased may still be spent."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start listening for resets."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening and close all connections."""

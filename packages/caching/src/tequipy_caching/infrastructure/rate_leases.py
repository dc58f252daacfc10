"""What a process has leased of limits, to be spent without asking Redis."""

import asyncio
import secrets
from time import monotonic_ns

from cachetools import LRUCache

from tequipy_caching.domain.gcra import LEASE_US, Grant
from tequipy_caching.domain.limits import RateDecision, RatePolicy


class Lease:
    """What this process may spend without asking; its id is its own, so that a forgotten one ends by itself."""

    __slots__ = ("asked", "ends", "full", "id", "left", "name", "policy", "remaining", "spent")

    def __init__(self, policy: RatePolicy, name: str) -> None:
        self.policy = policy
        self.name = name
        """Of the bucket."""
        self.id = secrets.token_hex(8)
        self.left = self.spent = self.ends = self.full = self.remaining = 0
        self.asked: asyncio.Event | None = None
        """Set when the one who is asking Redis for more has its answer."""

    def held(self, now: int) -> bool:
        """Tell whether the store holds anything for it."""
        return self.left + self.spent > 0 and now < self.ends

    def spend(self, cost: int, now: int) -> RateDecision:
        """Spend of the lease, which must be enough."""
        policy = self.policy
        self.left -= cost
        self.spent += cost
        self.remaining -= cost
        self.full = max(self.full, now) + cost * policy.increment // policy.leak_rate
        return RateDecision(True, policy.limit, self.remaining, 0.0, (self.full - now) / 1_000_000)

    def renew(self, grant: Grant, asked: int) -> None:
        """Begin with what was granted to an ask of that moment."""
        self.left, self.spent, self.remaining = grant.leased, 0, grant.remaining
        self.ends, self.full = asked + LEASE_US, asked + grant.reset_after


class Leases(LRUCache[str, Lease]):
    """The last used leases, by the names of their buckets."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.forgotten: list[Lease] = []
        """Those that the store still holds, to be given back."""

    def popitem(self) -> tuple[str, Lease]:
        """Forget the least recently used one."""
        name, lease = super().popitem()
        if lease.asked is None:  # else whoever asks will see that it has been forgotten
            self.forget(lease)
        return name, lease

    def forget_all(self) -> None:
        """Forget every lease."""
        while self:
            self.popitem()

    def forget(self, lease: Lease) -> None:
        """Have it given back, if there is anything to give back."""
        if lease.held(now_us()):
            self.forgotten.append(lease)


def now_us() -> int:
    """Return this process's monotonic clock, in microseconds."""
    return monotonic_ns() // 1000

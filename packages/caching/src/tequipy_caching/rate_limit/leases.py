"""The leases of a process: parts of limits that it may spend without asking Redis."""

import asyncio
import secrets
from collections import OrderedDict
from time import monotonic_ns

from tequipy_caching.rate_limit.gcra import LEASE_US, Grant
from tequipy_caching.rate_limit.policies import RateDecision, RatePolicy


class Lease:
    """A lease of a bucket; times in microseconds of the monotonic clock.

    It has an id of its own, so that a lease which this process has forgotten expires in Redis by itself.
    """

    __slots__ = ("asked", "ends", "full", "id", "left", "name", "policy", "remaining", "spent")

    def __init__(self, policy: RatePolicy, name: str) -> None:
        self.policy = policy
        self.name = name
        """The name of the bucket."""
        self.id = secrets.token_hex(8)
        self.left = self.spent = 0
        """How many requests it still has, and how many have been used."""
        self.ends = 0
        self.full = 0
        """When the whole burst of the bucket is available again."""
        self.remaining = 0
        """How many requests of the bucket may pass, those of the lease included."""
        self.asked: asyncio.Event | None = None
        """The event that is set when the running request for a new lease has its response; None without a request."""

    def held(self, now: int) -> bool:
        """Return whether Redis still holds the lease."""
        return self.left + self.spent > 0 and now < self.ends

    def spend(self, cost: int, now: int) -> RateDecision:
        """Spend a part of the lease, which must be large enough."""
        policy = self.policy
        self.left -= cost
        self.spent += cost
        self.remaining = remaining = self.remaining - cost
        full = max(now, self.full)
        self.full = full = full + cost * policy.increment // policy.leak_rate
        return RateDecision(True, policy.limit, remaining, 0.0, (full - now) / 1_000_000)

    def renew(self, grant: Grant, asked: int) -> None:
        """Begin anew with the grant of a request that was made at `asked`."""
        self.left, self.spent, self.remaining = grant.leased, 0, grant.remaining
        self.ends, self.full = asked + LEASE_US, asked + grant.reset_after


class Leases:
    """The most recently used leases, by the names of their buckets."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._leases: OrderedDict[str, Lease] = OrderedDict()
        """In the order of last use."""
        self.forgotten: list[Lease] = []
        """Leases that Redis still holds and that must be released."""

    def get(self, policy: RatePolicy, name: str) -> Lease | None:
        """Return the lease of a bucket, unless another policy of the same name took it."""
        lease = self._leases.get(name)
        if lease is None or (lease.policy is not policy and lease.policy != policy):
            return None
        self._leases.move_to_end(name)
        return lease

    def get_or_add(self, policy: RatePolicy, name: str) -> Lease:
        """Return the lease of a bucket; add an empty one, and forget that of another policy, if there is none."""
        lease = self.get(policy, name)
        if lease is None:
            if (other := self._leases.pop(name, None)) is not None:
                self._forget_unless_asked(other)
            elif len(self._leases) >= self._most:
                _, oldest = self._leases.popitem(last=False)
                self._forget_unless_asked(oldest)
            lease = self._leases[name] = Lease(policy, name)
        return lease

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease has not been forgotten."""
        return self._leases.get(lease.name) is lease

    def forget_all(self) -> None:
        """Forget all leases."""
        while self._leases:
            self._forget_unless_asked(self._leases.popitem()[1])

    def forget(self, lease: Lease) -> None:
        """Queue the lease to be released, if Redis still holds it."""
        if lease.held(now_us()):
            self.forgotten.append(lease)

    def _forget_unless_asked(self, lease: Lease) -> None:
        if lease.asked is None:  # otherwise the running request releases it
            self.forget(lease)


def now_us() -> int:
    """Return the monotonic clock of this process in microseconds."""
    return monotonic_ns() // 1000

"""Denials that a process remembers until they end, so that requests of a denied client do not reach Redis."""

from time import monotonic
from typing import NamedTuple

from tequipy_caching.cache.local_store import BoundedEntries, Memory
from tequipy_caching.cache.metrics import Tally
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.ports import MISSING
from tequipy_caching.rate_limit.gcra import Grant
from tequipy_caching.rate_limit.policies import RateDecision, RatePolicy


class _Denial(NamedTuple):
    """A remembered denial; times in microseconds of the monotonic clock."""

    policy: RatePolicy
    cost: int
    ends: int
    """When a request of this cost may pass."""
    full: int
    """When the whole burst is available again."""


class Denials:
    """The remembered denials by the names of their buckets; `policy` bounds their number and how long each is kept."""

    def __init__(self, policy: CachePolicy) -> None:
        self._denials: Memory[_Denial] = Memory(policy, BoundedEntries(policy, monotonic, Tally()), monotonic)

    def get(self, policy: RatePolicy, name: str, cost: int, now: int) -> RateDecision | None:
        """Return the denial of a bucket, unless a request of this policy and cost could pass at the time `now`."""
        denial = self._denials.fast_value(name, self._denials.clock())
        if denial is MISSING or cost < denial.cost or now >= denial.ends or denial.policy != policy:
            return None
        more = (cost - denial.cost) * policy.increment // policy.leak_rate
        retry, reset = (denial.ends - now + more) / 1_000_000, max(0, denial.full - now) / 1_000_000
        return RateDecision(False, policy.limit, 0, retry, reset)

    def add(self, policy: RatePolicy, name: str, cost: int, grant: Grant, now: int) -> None:
        """Remember the denial of a request that was made at the time `now`."""
        left = grant.retry_after / 1_000_000
        denial = _Denial(policy, cost, now + grant.retry_after, now + grant.reset_after)
        self._denials.keep(name, denial, left, ttl=left)

    def forget(self, name: str) -> None:
        """Forget the denial of a bucket."""
        self._denials.drop(name)

    def clear(self) -> None:
        """Forget all denials."""
        self._denials.clear()

"""The generic cell rate algorithm in integers; `redis/lua/rate_hit.lua` computes the same in Redis.

It is used in its form as a leaky bucket (ITU-T I.371, annex A): a request raises the level, which falls at a constant
rate; a request that would raise it above the burst may not pass. The unit of the level is chosen so that both the
increment of a request and the leak per microsecond are integers. Nothing is rounded, so the bound is exact.

A lease is a part of the budget that a process may use without a request to Redis. It is kept separate from the level
and does not leak, because it is unknown when it is used. When the process reports how much it has used, that is added
to the level; when the lease ends without a report, all of it is added. Since it was used at that moment or earlier, the
true level is never above the computed one.

A server that is short of memory may evict a bucket. Each bucket therefore has a time of creation (`born`). A process
sends the one that it knows, and how much of that bucket must still be in use: if the bucket is absent, or was created
later and not by a reset, the computation continues from there.

Policies of one name share their buckets. While two releases have different limits under one name, each converts the
level so that it counts the same number of requests; together no more pass than the looser limit allows.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final, NamedTuple

from tequipy_caching.cache.keys import Key, encode_key
from tequipy_caching.rate_limit.policies import EXACT, RateDecision, RatePolicy

LEASE_US: Final = 60_000_000
"""How long a process may use a lease, in microseconds."""
LEASE_GRACE_US: Final = 1_000_000
"""How much longer the server keeps it, because two clocks never run at exactly the same rate."""
STORE_RETRY: Final = 1.0
"""The `retry_after`, in seconds, of a refusal because Redis is unreachable."""
NO_LEASES: Final[Mapping[str, tuple[int, int]]] = {}


class Bucket(NamedTuple):
    """The used part of one budget: that of a policy and a key."""

    at: int = 0
    """The time of this state, in microseconds."""
    level: int = 0
    leases: Mapping[str, tuple[int, int]] = NO_LEASES
    """By holder: the number of leased requests, and the end of the lease."""
    born: int = 0
    """The time of its first request; 0 before that, and after a reset minus the time of the reset."""
    increment: int = 0
    """The increment of the policy that wrote the level, in whose units it is; 0 means the requesting policy."""


class BudgetRequest(NamedTuple):
    """A request of a process to a budget."""

    need: int
    """How many requests must pass now, all or none; 0 counts none: it only checks, and ends the holder's lease."""
    want: int = 0
    """The size of the lease that is wanted besides."""
    holder: str = ""
    """The id of the holder, whose current lease ends with this request; if empty, leases are not changed."""
    spent: int = 0
    """How much of its current lease the holder has used."""
    born: int = 0
    """The `born` of the bucket that the process knows; 0 if it knows none."""
    known: int = 0
    """The level that this bucket must still have, the process's own lease included."""


class Grant(NamedTuple):
    """The answer to a request; times in microseconds."""

    allowed: bool
    leased: int
    remaining: int
    """How many further requests may pass, those of the lease included."""
    retry_after: int
    reset_after: int
    used_for: int
    """How long it takes until the bucket is empty if no request follows, leases of other processes not counted."""
    born: int
    """The `born` of the bucket, to be sent with the next request."""
    vanished: bool
    """Whether the bucket that the process knew had been lost."""

    def decision(self, policy: RatePolicy, *, degraded: bool = False) -> RateDecision:
        """Convert it to the decision that callers get."""
        retry, reset = self.retry_after / 1_000_000, self.reset_after / 1_000_000
        return RateDecision(self.allowed, policy.limit, self.remaining, retry, reset, degraded)


def take(policy: RatePolicy, bucket: Bucket, request: BudgetRequest, now: int) -> tuple[Bucket, Grant]:
    """Return the bucket after a request, and the answer."""
    return take_all([(policy, bucket, request)], now)[0]


def take_all(requests: Sequence[tuple[RatePolicy, Bucket, BudgetRequest]], now: int) -> list[tuple[Bucket, Grant]]:
    """Return the buckets and answers for several budgets of one request; if one budget refuses it, none counts it.

    `allowed` then says for each budget whether that budget alone would have let the request pass.
    """
    settled = [_settle(*each, now) for each in requests]
    passes = all(each.lacking <= 0 for each in settled)
    return [
        _grant(policy, request, each, now, passes=passes)
        for (policy, _, request), each in zip(requests, settled, strict=True)
    ]


class _Settled(NamedTuple):
    """A budget at the moment of a request, with ended leases added to the level."""

    level: int
    leases: dict[str, tuple[int, int]]
    lacking: int
    """By how much the level is too high for the request; 0 or less if it may pass."""
    born: int
    vanished: bool


def _settle(policy: RatePolicy, bucket: Bucket, request: BudgetRequest, now: int) -> _Settled:
    """Bring a bucket up to date: leak, add ended leases, and replace what the server has lost by what is known."""
    increment, leak_rate = policy.increment, policy.leak_rate
    leases, ended = dict(bucket.leases), list[tuple[int, int]]()  # ended: the end, and how many requests were used
    for holder, (held, until) in bucket.leases.items():
        if holder == request.holder or until <= now:
            ended.append((min(until, now), request.spent if holder == request.holder else held))
            del leases[holder]
    level, at = _in_units(policy, bucket), bucket.at
    for until, used in sorted(ended):
        level, at = max(0, level - max(0, until - at) * leak_rate) + used * increment, until
    level = max(0, level - max(0, now - at) * leak_rate)
    born = 0 if bucket.born > 0 and not level and not leases else bucket.born  # empty means absent
    vanished = request.born not in {0, born} and born >= 0
    if vanished:
        level = max(level, request.known - sum(held for held, _ in leases.values()) * increment)
    lacking = max(request.need, 1) * increment - _room(policy, level, leases)
    return _Settled(level, leases, lacking, born, vanished)


def _in_units(policy: RatePolicy, bucket: Bucket) -> int:
    """Return the level in units of the policy, for the same number of requests."""
    if bucket.increment in {0, policy.increment}:
        return bucket.level
    whole, rest = divmod(bucket.level, bucket.increment)
    # Floats, because Lua computes with them.
    return min(whole * policy.increment + ceil(float(rest) * policy.increment / bucket.increment), EXACT)


def _room(policy: RatePolicy, level: int, leases: Mapping[str, tuple[int, int]]) -> int:
    """Return by how much the level may rise; leased requests count as used."""
    return policy.increment * (policy.capacity - sum(held for held, _ in leases.values())) - level


def _grant(
    policy: RatePolicy, request: BudgetRequest, settled: _Settled, now: int, *, passes: bool
) -> tuple[Bucket, Grant]:
    """Return the bucket after a request, and the answer; `passes` says whether all budgets of the request allow it."""
    increment, leak_rate = policy.increment, policy.leak_rate
    level, leases, lacking, born, vanished = settled
    if not born and ((passes and request.need) or vanished):
        born = now
    leased = retry = 0
    if passes:
        level += request.need * increment
        # At most half of the remaining budget, to leave some for other processes.
        leased = min(request.want, _room(policy, level, leases) // increment // 2)
        if leased > 0:
            leases[request.holder] = (leased, now + LEASE_US + LEASE_GRACE_US)
    elif lacking > 0:
        retry = _ceil(lacking, leak_rate)
        if lacking > level:  # part of it is leased, and begins to leak when the first of these leases ends
            retry = max(retry, min(until for _, until in leases.values()) - now + _ceil(lacking - level, leak_rate))
    reserved = sum(held for held, _ in leases.values())
    room = _room(policy, level, leases) + max(leased, 0) * increment  # the new lease belongs to the requesting process
    reset = _ceil(level + reserved * increment, leak_rate)
    used_for = _ceil(level + max(leased, 0) * increment, leak_rate)
    grant = Grant(lacking <= 0, leased, max(0, room // increment), retry, reset, used_for, born, vanished)
    return Bucket(now, level, leases, born, increment), grant


class Buckets:
    """The buckets that one process keeps without Redis: the `most` that were used last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buckets: dict[str, Bucket] = {}

    def take(self, policy: RatePolicy, name: str, need: int, now: int) -> Grant:
        """Return the answer for `need` requests at the time `now`, in microseconds."""
        return self.take_all([(policy, name)], need, now)[0]

    def take_all(self, budgets: Sequence[tuple[RatePolicy, str]], need: int, now: int) -> list[Grant]:
        """Return the answers of several budgets, of which all count the requests or none."""
        requests = [(policy, self._buckets.pop(name, Bucket()), BudgetRequest(need)) for policy, name in budgets]
        taken = take_all(requests, now)
        for (_, name), (bucket, _) in zip(budgets, taken, strict=True):
            self._buckets[name] = bucket  # inserted again, so that the dictionary is in the order of last use
        while len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return [grant for _, grant in taken]

    def count(self, policy: RatePolicy, name: str, need: int, now: int) -> None:
        """Count requests that have passed already, like `take` if they fit, but without an answer and its cost."""
        bucket = self._buckets.pop(name, None)
        level = 0
        if bucket is not None:
            held = bucket.level if bucket.increment == policy.increment else _in_units(policy, bucket)
            level = max(0, held - max(0, now - bucket.at) * policy.leak_rate)
        more = level + need * policy.increment
        if more <= (policy.burst or policy.limit) * policy.increment:  # `capacity`, without its call
            level = more
        self._buckets[name] = Bucket(now, level, increment=policy.increment)
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]

    def forget(self, name: str) -> None:
        """Remove a bucket, so that its budget is unused."""
        self._buckets.pop(name, None)


def decide_locally(policy: RatePolicy, buckets: Buckets, name: str, need: int, now: int) -> RateDecision:
    """Return the decision of a policy's `on_store_error`."""
    return decide_all_locally([(policy, name)], buckets, need, now)[0]


def decide_all_locally(
    budgets: Sequence[tuple[RatePolicy, str]], buckets: Buckets, need: int, now: int
) -> list[RateDecision]:
    """Return the decisions of several policies about one request without Redis; a refused request is not counted."""
    local = [(policy, name) for policy, name in budgets if policy.on_store_error == "local"]
    refused = any(policy.on_store_error == "deny" for policy, _ in budgets)
    grants = iter(buckets.take_all(local, 0 if refused else need, now))
    return [
        next(grants).decision(policy, degraded=True)
        if policy.on_store_error == "local"
        else _decide_without_counting(policy)
        for policy, _ in budgets
    ]


def _decide_without_counting(policy: RatePolicy) -> RateDecision:
    if policy.on_store_error == "allow":
        return RateDecision(True, policy.limit, policy.capacity, 0, 0, degraded=True)
    return RateDecision(False, policy.limit, 0, STORE_RETRY, STORE_RETRY, degraded=True)


def bucket_name(policy: RatePolicy, key: Key) -> str:
    """Return the name of a bucket; policies of the same name share it even if their limits differ."""
    return f"{policy.name}:{encode_key(key)}"


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)

"""The generic cell rate algorithm, in whole numbers; `infrastructure/scripts/rate_hit.lua` is its twin in Redis.

In its form as a leaky bucket (ITU-T I.371, annex A): a request raises the level, which falls evenly all the time; a
request that would bring it above the burst may not pass. The unit is chosen so that a request is a whole number of
them high and the level falls by a whole number in a microsecond: nothing is ever rounded, and the bound is exact.

A lease is a part of the budget that a process may spend without asking. It is held apart from the level, and does not
fall, for nobody here knows when it is spent: when the process tells how much it has spent, or the lease has ended (then
it counts as a whole), it joins the level of that moment. Any spending was at that moment or before, so the true level
is never above the one counted here.

A server that is short of memory may evict a bucket. Each bucket therefore has a birth, and a process that asks tells
which one it knew and how much of it must still be used: a bucket that was born later without a reset (or is not there)
is counted on from that.

A bucket belongs to a policy's name: while two releases have other limits under it, each takes the level for as many
requests as the other has counted, so that together no more pass than the looser of them allows.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final, NamedTuple

from tequipy_caching.domain.keys import Key, canonical, encode_key
from tequipy_caching.domain.limits import EXACT, RateDecision, RatePolicy

LEASE_US: Final = 60_000_000
"""How long a process may spend a lease, in microseconds."""
LEASE_GRACE_US: Final = 1_000_000
"""How much longer it is held, for two clocks never go quite alike."""
STORE_RETRY: Final = 1.0
"""Seconds after which a store that was away may be asked again."""
NO_LEASES: Final[Mapping[str, tuple[int, int]]] = {}


class Bucket(NamedTuple):
    """What is used of one budget."""

    at: int = 0
    """When that was so, in microseconds of one clock."""
    level: int = 0
    leases: Mapping[str, tuple[int, int]] = NO_LEASES
    """By holder: how many requests, and until when."""
    born: int = 0
    """When it was first counted in; 0: never yet, negative: when it was reset."""
    increment: int = 0
    """Of a request, in the units of the level; 0: the asker's."""


class BudgetRequest(NamedTuple):
    """What a process asks for."""

    need: int
    """Requests that must pass now, all or none; 0 looks whether one could, and changes but the holder's lease."""
    want: int = 0
    """A lease beyond them, if there is that much."""
    holder: str = ""
    """Who asks, and gives back its lease; empty: a lease that it may have stays untouched."""
    spent: int = 0
    """How much of its last lease the holder has used."""
    born: int = 0
    """The birth of the bucket that the asker knows; 0: it knows none."""
    known: int = 0
    """How much of that one must still be used, with the asker's own lease."""


class Grant(NamedTuple):
    """What it gets; times in microseconds."""

    allowed: bool
    leased: int
    remaining: int
    """What is left after this, with the lease."""
    retry_after: int
    reset_after: int
    used_for: int
    """For how long some of the bucket stays used, if nobody asks again; without the leases of others."""
    born: int
    """The bucket's birth, to be told with the next ask."""
    vanished: bool
    """Whether the bucket that the asker knew was no longer there."""

    def decision(self, policy: RatePolicy, *, degraded: bool = False) -> RateDecision:
        """Return it as callers see it."""
        retry, reset = self.retry_after / 1_000_000, self.reset_after / 1_000_000
        return RateDecision(self.allowed, policy.limit, self.remaining, retry, reset, degraded)


def take(policy: RatePolicy, bucket: Bucket, request: BudgetRequest, now: int) -> tuple[Bucket, Grant]:
    """Return what is used after an ask, and what it gets."""
    return take_all([(policy, bucket, request)], now)[0]


def take_all(requests: Sequence[tuple[RatePolicy, Bucket, BudgetRequest]], now: int) -> list[tuple[Bucket, Grant]]:
    """Return the same for asks that belong to one request: when a budget refuses it, none of the others counts it.

    `allowed` then says for each budget whether it would have let the request pass.
    """
    settled = [_settle(*each, now) for each in requests]
    passes = all(each.lacking <= 0 for each in settled)
    return [
        _grant(policy, request, each, now, passes=passes)
        for (policy, _, request), each in zip(requests, settled, strict=True)
    ]


class _Settled(NamedTuple):
    """A budget at the moment of an ask: leases that are over have joined the level."""

    level: int
    leases: dict[str, tuple[int, int]]
    lacking: int
    """How much room a request lacks; 0 or less: none."""
    born: int
    vanished: bool


def _settle(policy: RatePolicy, bucket: Bucket, request: BudgetRequest, now: int) -> _Settled:
    increment, leak_rate = policy.increment, policy.leak_rate
    leases, over = dict(bucket.leases), list[tuple[int, int]]()
    for holder, (held, until) in bucket.leases.items():
        if holder == request.holder or until <= now:
            over.append((min(until, now), request.spent if holder == request.holder else held))
            del leases[holder]
    level, at = _in_units(policy, bucket), bucket.at
    for until, used in sorted(over):
        level, at = max(0, level - max(0, until - at) * leak_rate) + used * increment, until
    level = max(0, level - max(0, now - at) * leak_rate)
    born = 0 if bucket.born > 0 and not level and not leases else bucket.born  # empty is as good as gone
    vanished = request.born not in {0, born} and born >= 0
    if vanished:
        level = max(level, request.known - sum(held for held, _ in leases.values()) * increment)
    lacking = max(request.need, 1) * increment - _room(policy, level, leases)
    return _Settled(level, leases, lacking, born, vanished)


def _in_units(policy: RatePolicy, bucket: Bucket) -> int:
    """Return the level in units of the policy, as many requests high."""
    if bucket.increment in {0, policy.increment}:
        return bucket.level
    whole, rest = divmod(bucket.level, bucket.increment)
    # As floats, for so the script has it.
    return min(whole * policy.increment + ceil(float(rest) * policy.increment / bucket.increment), EXACT)


def _room(policy: RatePolicy, level: int, leases: Mapping[str, tuple[int, int]]) -> int:
    return policy.increment * (policy.capacity - sum(held for held, _ in leases.values())) - level


def _grant(
    policy: RatePolicy, request: BudgetRequest, settled: _Settled, now: int, *, passes: bool
) -> tuple[Bucket, Grant]:
    increment, leak_rate = policy.increment, policy.leak_rate
    level, leases, lacking, born, vanished = settled
    if not born and ((passes and request.need) or vanished):
        born = now
    leased = retry = 0
    if passes:
        level += request.need * increment
        # Half of what is left at most: the others come too.
        leased = min(request.want, _room(policy, level, leases) // increment // 2)
        if leased > 0:
            leases[request.holder] = (leased, now + LEASE_US + LEASE_GRACE_US)
    elif lacking > 0:
        retry = _ceil(lacking, leak_rate)
        if lacking > level:  # what it takes is leased: it begins to fall when the first of these leases has ended
            retry = max(retry, min(until for _, until in leases.values()) - now + _ceil(lacking - level, leak_rate))
    reserved = sum(held for held, _ in leases.values())
    room = _room(policy, level, leases) + max(leased, 0) * increment  # what is leased now is the asker's
    reset = _ceil(level + reserved * increment, leak_rate)
    used_for = _ceil(level + max(leased, 0) * increment, leak_rate)
    grant = Grant(lacking <= 0, leased, max(0, room // increment), retry, reset, used_for, born, vanished)
    return Bucket(now, level, leases, born, increment), grant


class Buckets:
    """The budgets that one process keeps by itself, the last used ones up to `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buckets: dict[str, Bucket] = {}

    def take(self, policy: RatePolicy, name: str, need: int, now: int) -> Grant:
        """Return what an ask gets; times are microseconds of one clock."""
        return self.take_all([(policy, name)], need, now)[0]

    def take_all(self, budgets: Sequence[tuple[RatePolicy, str]], need: int, now: int) -> list[Grant]:
        """Return what an ask gets of several budgets, all or none."""
        requests = [(policy, self._buckets.pop(name, Bucket()), BudgetRequest(need)) for policy, name in budgets]
        taken = take_all(requests, now)
        for (_, name), (bucket, _) in zip(budgets, taken, strict=True):
            self._buckets[name] = bucket  # at the end: a dictionary is in the order of its insertions
        while len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return [grant for _, grant in taken]

    def forget(self, name: str) -> None:
        """Begin anew."""
        self._buckets.pop(name, None)


def decide_locally(policy: RatePolicy, buckets: Buckets, name: str, need: int, now: int) -> RateDecision:
    """Return what the policy says when the store is away."""
    return decide_all_locally([(policy, name)], buckets, need, now)[0]


def decide_all_locally(
    budgets: Sequence[tuple[RatePolicy, str]], buckets: Buckets, need: int, now: int
) -> list[RateDecision]:
    """Return what the policies of one request say when the store is away; a refused one is counted by none."""
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
    """Return what a budget is found by: the policies of one name share it, whatever their limits."""
    return f"{policy.name}:{encode_key(canonical(key))}"


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)

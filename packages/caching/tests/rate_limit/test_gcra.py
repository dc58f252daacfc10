"""The arithmetic of the limiter: the bound holds in every interval, to the microsecond and the request."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.gcra import (
    LEASE_US,
    Bucket,
    Buckets,
    BudgetRequest,
    Grant,
    bucket_name,
    decide_locally,
    take,
    take_all,
)

POLICIES = st.builds(
    RatePolicy,
    st.just("p"),
    st.integers(1, 50),
    st.integers(1, 5_000_000).map(lambda microseconds: microseconds / 1_000_000),
    burst=st.integers(1, 20),
)
PAUSES = st.one_of(st.just(0), st.integers(0, 100), st.integers(0, 3_000_000))


def excess(policy: RatePolicy, passed: list[tuple[int, int]]) -> int:
    """Return by how many units of the policy the busiest interval exceeds the bound; 0 or less if it holds.

    It is sufficient to check intervals from one allowed request to another. One pass finds the busiest: for each end it
    subtracts the lowest earlier value of the used units minus the units that have leaked.
    """
    sums = [0, *accumulate(cost for _, cost in passed)]
    lowest, worst = 0, -policy.capacity * policy.increment
    for index, (moment, _) in enumerate(passed):
        free = moment * policy.leak_rate
        before = sums[index] * policy.increment - free
        lowest = min(lowest, before) if index else before
        worst = max(worst, sums[index + 1] * policy.increment - free - lowest - policy.capacity * policy.increment)
    return worst


@given(POLICIES, st.lists(st.tuples(PAUSES, st.integers(1, 5)), max_size=60))
def test_the_bound_is_exact(policy: RatePolicy, hits: list[tuple[int, int]]) -> None:
    """No interval exceeds the bound; each denied request would exceed it, and passes exactly after `retry_after`."""
    bucket, now, passed = Bucket(), 1_000_000, list[tuple[int, int]]()
    for pause, cost in hits:
        now += pause
        if cost > policy.capacity:
            continue
        bucket, grant = take(policy, bucket, BudgetRequest(cost), now)
        with_it = [*passed, (now, cost)]
        assert grant.allowed == (excess(policy, with_it) <= 0)
        if grant.allowed:
            passed = with_it
            assert grant.retry_after == 0
        else:
            assert excess(policy, [*passed, (now + grant.retry_after, cost)]) <= 0
            assert excess(policy, [*passed, (now + grant.retry_after - 1, cost)]) > 0
        _, peeked = take(policy, bucket, BudgetRequest(0), now)
        assert peeked.remaining == grant.remaining
        assert take(policy, bucket, BudgetRequest(policy.capacity), now + grant.reset_after)[1].allowed


@given(POLICIES, st.lists(st.tuples(PAUSES, st.integers(1, 5), st.booleans()), max_size=60))
def test_the_bound_holds_when_buckets_vanish(policy: RatePolicy, hits: list[tuple[int, int, bool]]) -> None:
    """However often its bucket vanishes, a process that sends its known state lets no more requests pass."""
    bucket, now, known, passed = Bucket(), 1_000_000, (0, 0), list[tuple[int, int]]()
    for pause, cost, evicted in hits:
        now += pause
        bucket = Bucket() if evicted else bucket
        if cost > policy.capacity:
            continue
        born, until = known
        bucket, grant = take(
            policy, bucket, BudgetRequest(cost, born=born, known=max(0, until - now) * policy.leak_rate), now
        )
        known = (grant.born, now + grant.used_for)
        if grant.allowed:
            passed.append((now, cost))
    assert excess(policy, passed) <= 0


@given(st.lists(POLICIES, min_size=1, max_size=3), st.lists(st.tuples(PAUSES, st.integers(1, 5)), max_size=40))
def test_several_buckets_count_all_or_none(policies: list[RatePolicy], hits: list[tuple[int, int]]) -> None:
    """A request passes exactly if each policy alone would allow it, and each bucket changes as if it were alone."""
    together, now = [Bucket() for _ in policies], 1_000_000
    for pause, cost in hits:
        now += pause
        if cost > min(policy.capacity for policy in policies):
            continue
        alone = [
            take(policy, bucket, BudgetRequest(cost), now) for policy, bucket in zip(policies, together, strict=True)
        ]
        requests = [(policy, bucket, BudgetRequest(cost)) for policy, bucket in zip(policies, together, strict=True)]
        taken = take_all(requests, now)
        assert [grant.allowed for _, grant in taken] == [grant.allowed for _, grant in alone]
        if all(grant.allowed for _, grant in alone):
            assert taken == alone
        else:
            for policy, before, (after, grant) in zip(policies, together, taken, strict=True):
                assert take(policy, after, BudgetRequest(0), now) == take(policy, before, BudgetRequest(0), now)
                assert grant.remaining == take(policy, before, BudgetRequest(0), now)[1].remaining
        together = [bucket for bucket, _ in taken]


@dataclass
class Process:
    """A process that spends leases as the limiter does; responses to `lossy` requests are lost."""

    holder: str
    left: int = 0
    spent: int = 0
    ends: int = 0

    def hit(self, policy: RatePolicy, bucket: Bucket, now: int, *, lossy: bool) -> tuple[Bucket, bool]:
        if self.left and now < self.ends:
            self.left, self.spent = self.left - 1, self.spent + 1
            return bucket, True
        bucket, grant = take(policy, bucket, BudgetRequest(1, policy.lease, self.holder, self.spent), now)
        self.left = 0
        if lossy:
            return bucket, False
        self.left, self.spent, self.ends = grant.leased, 0, now + LEASE_US
        return bucket, grant.allowed


@given(
    st.builds(
        RatePolicy,
        st.just("p"),
        st.integers(1, 50),
        st.sampled_from([0.5, 10, 300]),
        burst=st.integers(5, 20),
        lease=st.integers(1, 5),
    ),
    st.lists(
        st.tuples(
            st.one_of(st.just(0), st.integers(0, 200_000), st.integers(0, 40_000_000)),
            st.integers(0, 3),
            st.sampled_from([False, False, False, True]),
        ),
        max_size=120,
    ),
)
def test_leases_keep_the_bound(policy: RatePolicy, hits: list[tuple[int, int, bool]]) -> None:
    """Whatever processes lease, spend late, lose or let expire, no interval exceeds the bound."""
    bucket, now, passed = Bucket(), 1_000_000, list[tuple[int, int]]()
    processes = [Process(str(number)) for number in range(4)]
    for pause, number, lossy in hits:
        now += pause
        bucket, allowed = processes[number].hit(policy, bucket, now, lossy=lossy)
        if allowed:
            passed.append((now, 1))
    assert excess(policy, passed) <= 0


def test_a_lease_leaves_half_to_the_others() -> None:
    """A process gets the wanted lease far from the limit, then half of the rest, then single requests."""
    policy = RatePolicy("p", 20, 3600, lease=8)
    bucket, leased = Bucket(), []
    for number in range(6):
        bucket, grant = take(policy, bucket, BudgetRequest(1, policy.lease, str(number)), 1)
        leased.append(grant.leased)
    assert leased == [8, 5, 2, 0, 0, 0]


def test_retry_after_includes_the_leases_of_others() -> None:
    """If leases of other processes are the reason for a denial, `retry_after` ends after them, and is correct."""
    policy = RatePolicy("p", 4, 8, lease=2)
    bucket, _ = take(policy, Bucket(), BudgetRequest(1, 2, "a"), 0)
    bucket, grant = take(policy, bucket, BudgetRequest(4), 4_000_000)
    assert not grant.allowed
    assert grant.retry_after > LEASE_US - 4_000_000
    assert take(policy, bucket, BudgetRequest(4), 4_000_000 + grant.retry_after)[1].allowed


def test_a_clock_step_back_allows_no_additional_request() -> None:
    """After a step back of the server's clock, no request waits for the old time, and no additional one passes."""
    policy = RatePolicy("p", 10, 1)
    bucket, _ = take(policy, Bucket(), BudgetRequest(10), 10_000_000)
    bucket, grant = take(policy, bucket, BudgetRequest(1), 5_000_000)
    assert not grant.allowed
    assert take(policy, bucket, BudgetRequest(1), 5_100_000)[1].allowed


def test_a_lease_counts_what_was_spent_after_a_clock_step_back() -> None:
    """A released lease counts what was spent of it, however far the clock was set back meanwhile."""
    policy = RatePolicy("p", 60, 60, lease=5)
    bucket, _ = take(policy, Bucket(), BudgetRequest(1, policy.lease, "a"), 10_000_000_000)
    bucket, grant = take(policy, bucket, BudgetRequest(1, 0, "a", spent=5), 6_000_000_000)
    assert (grant.allowed, grant.remaining) == (True, 53)


@given(
    st.lists(POLICIES, min_size=1, max_size=3),
    st.lists(st.tuples(PAUSES, st.integers(1, 5), st.integers(0, 2), st.booleans()), max_size=60),
)
def test_counting_is_taking(policies: list[RatePolicy], hits: list[tuple[int, int, int, bool]]) -> None:
    """Requests that are only counted leave a bucket as if each had been taken, also under a policy of another limit."""
    taken, counted, now = Buckets(10), Buckets(10), 1_000_000
    for pause, wanted, number, counts in hits:
        now += pause
        policy = policies[number % len(policies)]
        cost = min(wanted, policy.capacity)
        grant = taken.take(policy, "ada", cost, now)
        if counts:
            counted.count(policy, "ada", cost, now)
        else:
            assert counted.take(policy, "ada", cost, now)[:-2] == grant[:-2]  # without `born`, which is sent to Redis
        assert counted.take(policy, "ada", 0, now)[:-2] == taken.take(policy, "ada", 0, now)[:-2]


def test_buckets_are_bounded() -> None:
    """The least recently used bucket is evicted."""
    policy, buckets = RatePolicy("p", 3, 3600), Buckets(most=2)
    for name in ("a", "b", "a", "c"):
        buckets.take(policy, name, 1, 0)
    assert [buckets.take(policy, name, 0, 0).remaining for name in ("a", "b")] == [1, 3]
    for name in ("d", "e"):
        buckets.count(policy, name, 1, 0)
    assert [buckets.take(policy, name, 0, 0).remaining for name in ("d", "e", "a")] == [2, 2, 3]


def test_on_store_error_decides_without_redis() -> None:
    """Without Redis, requests are counted locally, or all are allowed, or all denied; each decision is degraded."""
    decisions = {
        policy.on_store_error: [decide_locally(policy, Buckets(10), "n", 1, 0) for _ in range(2)]
        for policy in (RatePolicy("p", 1, 60, on_store_error=way) for way in ("local", "allow", "deny"))
    }
    assert {way: [decision.allowed for decision in made] for way, made in decisions.items()} == {
        "local": [True, True],
        "allow": [True, True],
        "deny": [False, False],
    }
    assert decisions["deny"][0].retry_after > 0
    assert all(decision.degraded for made in decisions.values() for decision in made)


@given(
    st.lists(POLICIES, min_size=2, max_size=3),
    st.lists(st.tuples(PAUSES, st.integers(1, 3), st.integers(0, 2)), max_size=60),
)
def test_policies_of_one_name_share_the_bound(policies: list[RatePolicy], hits: list[tuple[int, int, int]]) -> None:
    """However releases with different limits take turns, no interval exceeds the highest burst and the highest rate."""
    name, *others = {bucket_name(policy, "ada") for policy in policies}
    assert not others
    buckets, now, passed = Buckets(10), 1_000_000, list[tuple[int, int]]()
    for pause, cost, number in hits:
        now += pause
        policy = policies[number % len(policies)]
        if cost <= policy.capacity and buckets.take(policy, name, cost, now).allowed:
            passed.append((now, cost))
    most = max(policy.capacity for policy in policies)
    rate = max(Fraction(policy.leak_rate, policy.increment) for policy in policies)
    for first, (begin, _) in enumerate(passed):
        count = 0
        for moment, cost in passed[first:]:
            count += cost
            assert count <= most + (moment - begin) * rate


def test_a_changed_limit_keeps_the_counted_requests() -> None:
    """A half-full bucket represents the same number of requests under another limit."""
    ten, five = RatePolicy("p", 10, 60), RatePolicy("p", 5, 60)
    buckets = Buckets(10)
    assert [buckets.take(ten, "ada", 1, 0).allowed for _ in range(4)] == [True] * 4
    assert [buckets.take(five, "ada", 1, 0).allowed for _ in range(2)] == [True, False]
    assert [buckets.take(ten, "ada", 1, 0).allowed for _ in range(6)] == [True] * 5 + [False]


def test_decisions_are_in_seconds() -> None:
    """Decisions are in seconds, although the arithmetic is in microseconds."""
    decision = Grant(False, 0, 0, 1_500_000, 2_000_000, 2_000_000, 1, vanished=False).decision(RatePolicy("p", 7, 60))
    assert (decision.limit, decision.retry_after, decision.reset_after) == (7, 1.5, 2.0)

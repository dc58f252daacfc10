"""The ladder of locks as pure rules."""

from datetime import timedelta

import pytest

from tequipy_auth.domain.lockout import LONGEST_LOCK, MEMORY, Counter, Scope, client_network
from tequipy_platform.testing import EPOCH

MOMENT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def after(failures: int, scope: Scope = Scope.PAIR, *, every: timedelta = MOMENT) -> Counter:
    """Return the counter after so many failures, the first at `EPOCH`."""
    counter = Counter()
    for number in range(failures):
        counter = counter.with_failure(scope, EPOCH + number * every)
    return counter


@pytest.mark.parametrize(
    ("scope", "failures", "period"),
    [
        (Scope.PAIR, 5, timedelta(minutes=15)),
        (Scope.ACCOUNT, 20, timedelta(hours=1)),
        (Scope.CLIENT, 50, timedelta(hours=1)),
        (Scope.DEVICE, 5, timedelta(minutes=15)),
    ],
)
def test_so_many_failures_within_the_period_lock(scope: Scope, failures: int, period: timedelta) -> None:
    """One fewer does not lock, nor do they when the first is older than the period."""
    assert not after(failures - 1, scope).is_locked(EPOCH + MINUTE / 60)
    locked = after(failures, scope)
    assert locked.locked_until == EPOCH + (failures - 1) * MOMENT + timedelta(seconds=30)
    almost = after(failures - 1, scope)
    assert almost.with_failure(scope, EPOCH + period - MOMENT).locks == 1
    assert almost.with_failure(scope, EPOCH + period).locks == 0


def test_after_a_lock_each_failure_takes_the_next_step() -> None:
    """30 s, then 1, 2, 4, 8 and at most 15 min, for one failure each."""
    counter, now = after(5), EPOCH
    lengths = []
    for _ in range(8):
        assert counter.locked_until is not None
        lengths.append((counter.locked_until - counter.failed_at[-1]).total_seconds())
        now = counter.locked_until
        assert not counter.is_locked(now), "a lock ends at its end"
        counter = counter.with_failure(Scope.PAIR, now)
    assert lengths == [30, 60, 120, 240, 480, 900, 900, 900]
    assert Counter((EPOCH,), 10_000).with_failure(Scope.PAIR, EPOCH).locked_until == EPOCH + LONGEST_LOCK


def test_the_counter_dies_half_a_day_after_the_last_failure() -> None:
    """Until then one failure takes the next step, from then on all is forgotten."""
    counter = after(5)
    last = counter.failed_at[-1]
    assert counter.dies_at == last + MEMORY == last + timedelta(hours=12)
    assert counter.with_failure(Scope.PAIR, last + MEMORY - MOMENT).locks == 2
    assert counter.with_failure(Scope.PAIR, last + MEMORY) == Counter((last + MEMORY,))


def test_no_more_is_kept_than_the_period_needs() -> None:
    """However long somebody fails now and then, the counter stays small, and it knows its latest failure."""
    assert len(after(500, every=timedelta(minutes=4)).failed_at) <= 5
    assert after(500, every=timedelta(minutes=4)).locks == 0
    lonely = after(2, every=timedelta(hours=1))
    assert lonely.failed_at == (EPOCH, EPOCH + timedelta(hours=1))


def test_what_was_no_failure_is_taken_back_with_the_lock_it_caused() -> None:
    """Counters of an account and of a client address are after a success as they were before it."""
    before = after(19, Scope.ACCOUNT)
    now = EPOCH + MINUTE
    reserved = before.with_failure(Scope.ACCOUNT, now)
    assert reserved.is_locked(now)
    assert reserved.without_failure(now, reserved.locked_until) == before
    before = after(3, Scope.ACCOUNT)
    assert before.with_failure(Scope.ACCOUNT, now).without_failure(now, None) == before


def test_taking_back_leaves_what_others_did() -> None:
    """A failure at the very same moment stays, and so does a lock that a later failure caused."""
    now = EPOCH + MINUTE
    twice = Counter().with_failure(Scope.PAIR, now).with_failure(Scope.PAIR, now)
    assert twice.without_failure(now, None) == Counter((now,))
    first = after(5)
    assert first.locked_until is not None
    second = first.with_failure(Scope.PAIR, first.locked_until)
    taken_back = second.without_failure(first.failed_at[-1], first.locked_until)
    assert (taken_back.locks, taken_back.locked_until) == (1, second.locked_until)
    assert Counter().without_failure(now, now) == Counter(), "dead and forgotten meanwhile"


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_a_client_address_is_what_one_subscriber_has(ip: str | None, network: str) -> None:
    """IPv4 counts as it is, also when mapped into IPv6; IPv6 counts by /64."""
    assert client_network(ip) == network

"""The lockout rules as pure functions."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_auth.domain.lockout import COUNTER_TTL, MAX_LOCK, Counter, Scope
from tequipy_auth.domain.value_objects import Client
from tequipy_platform.testing import EPOCH

MOMENT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def after(failures: int, scope: Scope = Scope.PAIR, *, every: timedelta = MOMENT) -> Counter:
    """Return the counter after a number of failures, the first one at `EPOCH`."""
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
        (Scope.SESSION, 5, timedelta(minutes=15)),
    ],
)
def test_failures_within_the_period_cause_a_lock(scope: Scope, failures: int, period: timedelta) -> None:
    """One failure less causes no lock, nor do failures of which the first is older than the period."""
    assert after(failures - 1, scope).refuses(scope, EPOCH + MOMENT) is None
    locked = after(failures, scope)
    assert locked.refuses(scope, EPOCH + (failures - 1) * MOMENT) == timedelta(seconds=30)
    assert locked.locked_until == EPOCH + (failures - 1) * MOMENT + timedelta(seconds=30)
    almost = after(failures - 1, scope)
    assert almost.with_failure(scope, EPOCH + period - MOMENT).locks == 1
    assert almost.with_failure(scope, EPOCH + period).locks == 0


def test_after_a_lock_each_failure_causes_a_longer_lock() -> None:
    """The locks last 30 s, then 1, 2, 4, 8 and at most 15 min."""
    counter, now = after(5), EPOCH
    lengths = []
    for _ in range(8):
        assert counter.locked_until is not None
        lengths.append((counter.locked_until - counter.failed_at[-1]).total_seconds())
        now = counter.locked_until
        assert counter.refuses(Scope.PAIR, now) is None, "a lock ends at its end"
        counter = counter.with_failure(Scope.PAIR, now)
    assert lengths == [30, 60, 120, 240, 480, 900, 900, 900]
    assert Counter((EPOCH,), locks=10_000).with_failure(Scope.PAIR, EPOCH).locked_until == EPOCH + MAX_LOCK


def fail_repeatedly(scope: Scope, waits: list[timedelta]) -> list[tuple[datetime, float]]:
    """Fail repeatedly, each time a given time after the previous lock; return start and seconds of each lock."""
    counter, now, locks = after(scope.failures - 1, scope), EPOCH + MINUTE, []
    for wait in [timedelta(0), *waits]:
        now = max(now, counter.locked_until or now) + wait
        assert counter.refuses(scope, now) is None, "what is not locked may be tried"
        counter = counter.with_failure(scope, now)
        if counter.locked_until is not None and counter.locked_until > now:
            locks.append((now, (counter.locked_until - now).total_seconds()))
    return locks


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.CLIENT])
def test_account_and_client_locks_start_short_again_after_an_hour(scope: Scope) -> None:
    """An attacker who fails after each lock gets longer locks for an hour, then needs many failures for 30 s."""
    locks = fail_repeatedly(scope, [timedelta(0)] * 8)
    assert [seconds for _, seconds in locks] == [30, 60, 120, 240, 480, 900, 900, 900]
    assert locks[-1][0] + 15 * MINUTE > locks[0][0] + scope.period, "a lock that began before stands until its end"
    locks = fail_repeatedly(scope, [timedelta(0)] * 60)
    assert [seconds for _, seconds in locks[8:11]] == [30, 60, 120]


@pytest.mark.parametrize("scope", [Scope.PAIR, Scope.DEVICE, Scope.SESSION])
def test_pair_locks_stay_long_until_the_counter_expires(scope: Scope) -> None:
    """Locks of a pair start short again only after 12 hours without failures."""
    assert [seconds for _, seconds in fail_repeatedly(scope, [timedelta(hours=2)] * 8)][-3:] == [900, 900, 900]


@given(
    st.sampled_from([Scope.ACCOUNT, Scope.CLIENT]),
    st.lists(st.integers(0, 80).map(lambda minutes: minutes * MINUTE), max_size=150),
)
def test_the_first_lock_of_an_hour_is_short(scope: Scope, waits: list[timedelta]) -> None:
    """Whenever failures occur, the first lock of an hour lasts 30 s and each further one twice as long."""
    began, expected = EPOCH, 0.0
    for moment, seconds in fail_repeatedly(scope, waits):
        if not expected or moment >= began + scope.period:
            began, expected = moment, 30.0
        else:
            expected = min(900.0, 2 * expected)
        assert seconds == expected


@given(st.sampled_from(list(Scope)), st.lists(st.booleans(), max_size=200))
def test_no_more_attempts_than_the_limit_are_checked_before_a_lock(scope: Scope, finishes: list[bool]) -> None:
    """For any order of attempts and failures, no more attempts are checked than the scope allows; 5 for a pair."""
    counter, under_way, looked_at = Counter(), 0, 0
    for finish in [*finishes, *[True] * 200]:
        if not finish and counter.refuses(scope, EPOCH) is None:
            counter = counter.with_reservation(scope, EPOCH)
            under_way, looked_at = under_way + 1, looked_at + 1
        elif finish and under_way:
            counter = counter.without_reservation(EPOCH).with_failure(scope, EPOCH)
            under_way -= 1
    assert looked_at <= scope.failures
    assert (counter.locks > 0) == (looked_at == scope.failures)


def test_a_counter_of_an_earlier_release_starts_short_again() -> None:
    """A counter without the time of its first lock starts with short locks again an hour after its latest lock."""
    counter = replace(after(20, Scope.ACCOUNT), first_locked_at=None)
    assert counter.locked_until is not None
    later = counter.locked_until + timedelta(hours=1)
    assert counter.with_failure(Scope.ACCOUNT, later - MOMENT).locks == 2
    assert counter.with_failure(Scope.ACCOUNT, later).locks == 0


@pytest.mark.parametrize("scope", list(Scope))
def test_times_from_a_wrong_clock_are_ignored(scope: Scope) -> None:
    """Failures, attempts and locks that are years in the future do not count; a skew of minutes is accepted."""
    locked = replace(after(scope.failures, scope), reserved_at=(EPOCH,) * 100)
    years_before, moments_before = EPOCH - timedelta(days=1000), EPOCH - MINUTE
    assert not locked.is_locked(years_before)
    assert locked.refuses(scope, years_before) is None
    failed = locked.with_failure(scope, years_before)
    assert (failed.failed_at, failed.locks, failed.locked_until) == ((years_before,), 0, None)
    assert locked.is_locked(moments_before)
    assert locked.refuses(scope, moments_before) is not None
    assert locked.with_failure(scope, moments_before).locks == 2


def test_trust_is_kept_for_its_time() -> None:
    """Trust after a reset outlasts failures and extends the counter's expiry; a success deletes it."""
    counter = Counter(trusted_until=EPOCH + timedelta(days=1)).with_reservation(Scope.PAIR, EPOCH)
    counter = counter.without_reservation(EPOCH).with_failure(Scope.PAIR, EPOCH)
    assert counter.is_trusted(EPOCH + timedelta(days=1) - MOMENT)
    assert not counter.is_trusted(EPOCH + timedelta(days=1))
    assert counter.expires_at == EPOCH + timedelta(days=1)
    assert counter.with_failure(Scope.PAIR, EPOCH + COUNTER_TTL).is_trusted(EPOCH + COUNTER_TTL)


def test_a_counter_expires_12_hours_after_the_last_failure() -> None:
    """Until then one failure causes a longer lock; afterwards the counter is empty."""
    counter = after(5)
    last = counter.failed_at[-1]
    assert counter.expires_at == last + COUNTER_TTL == last + timedelta(hours=12)
    assert counter.with_failure(Scope.PAIR, last + COUNTER_TTL - MOMENT).locks == 2
    assert counter.with_failure(Scope.PAIR, last + COUNTER_TTL) == Counter((last + COUNTER_TTL,))


def test_a_counter_stays_small() -> None:
    """The counter keeps only failures within the period and the latest one."""
    assert len(after(500, every=timedelta(minutes=4)).failed_at) <= 5
    assert after(500, every=timedelta(minutes=4)).locks == 0
    lonely = after(2, every=timedelta(hours=1))
    assert lonely.failed_at == (EPOCH, EPOCH + timedelta(hours=1))


@pytest.mark.parametrize("failed", range(5))
def test_reservations_and_failures_never_exceed_the_limit(failed: int) -> None:
    """Failures and reservations together never exceed the limit; a released reservation is available again."""
    counter, now = after(failed), EPOCH + MINUTE
    for _ in range(5 - failed):
        assert counter.refuses(Scope.PAIR, now) is None
        counter = counter.with_reservation(Scope.PAIR, now)
    assert counter.refuses(Scope.PAIR, now) == timedelta(seconds=1)
    assert counter.without_reservation(now).refuses(Scope.PAIR, now) is None, "one of several at the same moment"


def test_after_a_lock_one_attempt_at_a_time_is_checked() -> None:
    """After a lock only one attempt may be in progress, so that each lock allows one guess."""
    now = EPOCH + MINUTE
    counter = after(5).with_reservation(Scope.PAIR, now)
    assert counter.refuses(Scope.PAIR, now) == timedelta(seconds=1)


def test_an_abandoned_reservation_expires() -> None:
    """A reservation expires after a minute; a failure that arrives later is still counted."""
    counter = Counter()
    for _ in range(5):
        counter = counter.with_reservation(Scope.PAIR, EPOCH)
    assert counter.refuses(Scope.PAIR, EPOCH + MINUTE - MOMENT) is not None
    assert counter.refuses(Scope.PAIR, EPOCH + MINUTE) is None
    assert counter.expires_at == EPOCH + MINUTE
    late = counter.with_failure(Scope.PAIR, EPOCH + MINUTE)
    assert late == Counter((EPOCH + MINUTE,))
    assert Counter().without_reservation(EPOCH) == Counter()


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
def test_client_networks(ip: str | None, network: str) -> None:
    """IPv4 addresses count individually, also when mapped into IPv6; IPv6 addresses count by /64."""
    assert Client(ip).network(64) == network

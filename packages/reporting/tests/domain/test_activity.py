"""The rules of the daily activity: which days are counted, and which run compares them with the audit."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform.testing import EPOCH
from tequipy_reporting import Period
from tequipy_reporting.domain.activity import (
    AGGREGATE_EVERY,
    SLICE,
    countable,
    days_of,
    last_week,
    slices,
    slices_to_compare,
)

DAY = timedelta(days=1)
MOMENTS = st.timedeltas(timedelta(0), 2000 * DAY).map(lambda passed: EPOCH + passed)
RETENTIONS = st.timedeltas(7 * DAY, 500 * DAY)


@given(now=MOMENTS, retention=RETENTIONS)
def test_only_whole_days_are_countable(now: datetime, retention: timedelta) -> None:
    """The first countable day begins within the audit's retention, an hour's difference of clocks included."""
    period = countable(now, retention)
    assert period.since >= now - retention + timedelta(hours=1)
    assert period.since <= now - retention + timedelta(hours=1) + DAY
    assert period.last_day == now.date()


@given(now=MOMENTS, retention=RETENTIONS)
def test_every_run_compares_the_last_week(now: datetime, retention: timedelta) -> None:
    """The first slice are the last seven days, or what the audit holds of them; no slice has more."""
    whole = countable(now, retention)
    recent, *older = slices_to_compare(now, whole)
    assert days_of(recent) == days_of(whole)[-SLICE:]
    assert all(0 < len(days_of(each)) <= SLICE for each in older)


@given(now=MOMENTS, retention=RETENTIONS)
def test_all_days_are_compared_within_some_hours(now: datetime, retention: timedelta) -> None:
    """Consecutive runs compare each countable day, 400 days within five hours."""
    whole = countable(now, retention)
    runs = max(1, -(-(len(days_of(whole)) - SLICE) // SLICE))
    assert retention > 400 * DAY or runs * AGGREGATE_EVERY < timedelta(hours=5)
    compared = {
        day
        for run in range(runs)
        for each in slices_to_compare(now + run * AGGREGATE_EVERY, whole)
        for day in days_of(each)
    }
    assert compared == set(days_of(whole))


@given(st.dates(), st.integers(-1, 100))
def test_slices_are_the_period(first: date, days: int) -> None:
    """The slices of a period are all of its days, in order, none of them twice."""
    if (date.max - first).days <= days + SLICE or first == date.min:
        return
    period = Period(first, first + days * DAY)
    assert [day for each in slices(period) for day in days_of(each)] == days_of(period)


@pytest.mark.parametrize(
    ("now", "monday"),
    [
        ("2026-11-23T06:00", "2026-11-16"),
        ("2026-11-23T00:00", "2026-11-16"),
        ("2026-11-29T23:59", "2026-11-16"),
        ("2026-11-30T00:00", "2026-11-23"),
        ("2027-01-04T06:00", "2026-12-28"),
    ],
)
def test_the_last_week_is_complete(now: str, monday: str) -> None:
    """It is the last week from Monday to Sunday that is over, whatever the day."""
    week = last_week(datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert week == Period(date.fromisoformat(monday), date.fromisoformat(monday) + 6 * DAY)

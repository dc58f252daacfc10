"""The occurrences of schedules: rules without I/O."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tequipy_platform import Crontab
from tequipy_platform.messaging.occurrences import (
    check_schedule,
    due_occurrence,
    latest_occurrence,
    next_occurrence,
)

MINUTE = timedelta(minutes=1)
WEEKDAYS = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
TIMES = st.timedeltas(timedelta(0), timedelta(days=36_500)).map(lambda since: datetime(2000, 1, 1, tzinfo=UTC) + since)
PERIODS = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


def numbers(most: int) -> st.SearchStrategy[str]:
    """Return one field of cron: any, each n-th, a range, or a list."""
    number = st.integers(0, most)
    several = st.lists(number, min_size=1, max_size=4).map(lambda values: ",".join(map(str, values)))
    spans = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    return st.one_of(st.just("*"), st.integers(1, most).map(lambda step: f"*/{step}"), spans, several)


CRONTABS = st.builds(
    Crontab,
    minute=numbers(59),
    hour=numbers(23),
    day_of_week=st.sampled_from(["*", *WEEKDAYS, "MON-FRI", "0", "7"]),
)
SCHEDULES = st.one_of(PERIODS, CRONTABS)


def matches(field: str, value: int) -> bool:
    """Return whether cron's field contains a value, independently of the library."""
    for part in field.split(","):
        if part.startswith("*"):
            if value % int(part[2:] or 1) == 0:
                return True
        else:
            first, _, last = part.partition("-")
            if int(first) <= value <= int(last or first):
                return True
    return False


def fires(crontab: Crontab, time: datetime) -> bool:
    days = {"*": range(7), "MON-FRI": range(5), "0": [6], "7": [6]}
    weekdays = days.get(crontab.day_of_week) or [WEEKDAYS.index(crontab.day_of_week)]
    return time.weekday() in weekdays and matches(crontab.hour, time.hour) and matches(crontab.minute, time.minute)


@given(every=SCHEDULES, now=TIMES)
def test_now_is_between_the_latest_and_the_next_occurrence(every: timedelta | Crontab, now: datetime) -> None:
    """The latest occurrence is not after now, the next one is, and there is none between them."""
    latest, upcoming = latest_occurrence(every, now), next_occurrence(every, now)
    assert latest is not None
    assert upcoming is not None
    assert latest <= now < upcoming
    assert latest_occurrence(every, latest) == latest
    assert next_occurrence(every, latest) == upcoming
    assert latest_occurrence(every, upcoming) == upcoming
    assert latest_occurrence(every, upcoming - timedelta(microseconds=1)) == latest
    assert latest.tzinfo == upcoming.tzinfo == UTC


@settings(max_examples=50)
@given(every=CRONTABS, now=TIMES)
def test_fields_mean_what_cron_means(every: Crontab, now: datetime) -> None:
    """The latest occurrence matches the fields, and no minute between it and now does."""
    latest = latest_occurrence(every, now)
    assert latest is not None
    minute = now.replace(second=0, microsecond=0)
    while not fires(every, minute):
        minute -= MINUTE
    assert latest == minute


@given(every=PERIODS, now=TIMES, hours=st.integers(-23, 23))
def test_periods_count_from_the_epoch_in_utc(every: timedelta, now: datetime, hours: int) -> None:
    """Each process finds the same occurrences, wherever its clock's time zone is and whenever it was started."""
    latest = latest_occurrence(every, now)
    assert latest is not None
    assert (latest - datetime(1970, 1, 1, tzinfo=UTC)) % every == timedelta(0)
    elsewhere = now.astimezone(datetime.strptime(f"{hours:+03}00", "%z").tzinfo)
    assert latest_occurrence(every, elsewhere) == latest


@given(every=SCHEDULES, start=TIMES, data=st.data())
def test_no_step_of_the_clock_loses_an_occurrence(
    every: timedelta | Crontab, start: datetime, data: st.DataObject
) -> None:
    """An occurrence that the clock passes between two looks is added, whatever steps the clock makes before and after.

    The looks are closer together than the occurrences.
    """
    shortest = every if isinstance(every, timedelta) else MINUTE
    looks = st.timedeltas(timedelta(microseconds=1), shortest - timedelta(microseconds=1))
    steps = st.timedeltas(-3 * shortest, 3 * shortest)
    now = last = start
    added = set()
    for is_step in data.draw(st.lists(st.booleans(), max_size=20)):
        before = now
        now += data.draw(steps if is_step else looks)
        due = due_occurrence(every, last, now)
        last = due or min(last, now)
        if due is not None:
            assert due <= now
            added.add(due)
        passed = next_occurrence(every, before)
        if not is_step and passed is not None and passed <= now:
            assert passed in added


@given(every=SCHEDULES, last=TIMES, away=st.timedeltas(timedelta(0), timedelta(days=1000)))
def test_after_a_pause_the_latest_missed_occurrence_is_due_once(
    every: timedelta | Crontab, last: datetime, away: timedelta
) -> None:
    """Whatever time has passed, one occurrence is due, the latest, and none after it."""
    now = last + away
    due = due_occurrence(every, last, now)
    upcoming = next_occurrence(every, last)
    assert upcoming is not None
    assert due == (latest_occurrence(every, now) if upcoming <= now else None)
    if due is not None:
        assert due_occurrence(every, due, now) is None


@pytest.mark.parametrize(
    ("every", "why"),
    [
        (timedelta(0), "shorter"),
        (timedelta(seconds=-5), "shorter"),
        (timedelta(milliseconds=999), "shorter"),
        (Crontab(minute="60"), "Bad minute"),
        (Crontab(minute="soon"), "Bad minute"),
        (Crontab(minute=""), "fields"),
        (Crontab(minute="0 0"), "fields"),
        (Crontab(day_of_month="31", month_of_year="2"), "Bad day-of-month"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(every: timedelta | Crontab, why: str) -> None:
    """A period under a second, and fields that cron does not know or that match no date, are refused."""
    with pytest.raises(ValueError, match=why):
        check_schedule(every)


@given(every=SCHEDULES)
def test_other_schedules_are_accepted(every: timedelta | Crontab) -> None:
    """A schedule that has occurrences is accepted."""
    check_schedule(every)

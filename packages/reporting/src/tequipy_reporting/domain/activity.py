"""The activity of accounts on each day, and which days are compared with the audit when."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from tequipy_reporting.domain.reports import Period

AGGREGATE_EVERY: Final = timedelta(minutes=5)
"""The time between two runs of the aggregation."""

SLICE: Final = 7
"""The number of days that one statement compares with the audit; with a million events a day it takes seconds."""

_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DailyActivity:
    """What happened on one day in UTC."""

    day: date
    registrations: int = 0
    """Accepted registrations (`registered` with success), in private mode before the address is verified."""
    logins: int = 0
    """Successful logins (`login_ok`), reauthentications included."""
    failed_logins: int = 0
    """Wrong passwords (`login_failed`); attempts that a lock refused unchecked (`login_locked`) are not included."""
    active_users: int = 0
    """The number of distinct accounts that logged in or refreshed a token (`login_ok`, `token_refreshed`)."""


@dataclass(frozen=True, slots=True)
class CountedDay:
    """The activity of a day, with the number of events that the audit had for it just before they were counted.

    The audit is append-only, so a day is up to date as long as this is the number of its events.
    """

    activity: DailyActivity
    events: int
    counted_at: datetime


def days_of(period: Period) -> list[date]:
    """Return the days of a period."""
    return [period.first_day + n * _ONE_DAY for n in range((period.last_day - period.first_day).days + 1)]


def countable(now: datetime, retention: timedelta) -> Period:
    """Return the days that the audit holds as a whole, up to today.

    The hour is for clocks of other processes, which may purge earlier than this one expects.
    """
    today = now.astimezone(UTC).date()
    first = (now - retention + timedelta(hours=1)).astimezone(UTC).date() + _ONE_DAY
    return Period(min(first, today), today)


def slices_to_compare(now: datetime, whole: Period) -> Iterator[Period]:
    """Return the periods that a run at this time compares with the audit: the last week, and one older week.

    Each run takes the next older week, so that all of them are compared in some hours, whatever runs before.
    """
    recent = Period(max(whole.first_day, whole.last_day - (SLICE - 1) * _ONE_DAY), whole.last_day)
    yield recent
    older = list(slices(Period(whole.first_day, recent.first_day - _ONE_DAY)))
    if older:
        yield older[int(now.timestamp() // AGGREGATE_EVERY.total_seconds()) % len(older)]


def slices(period: Period) -> Iterator[Period]:
    """Cut a period into periods of a week; the last one may be shorter. An empty period has none."""
    first = period.first_day
    while first <= period.last_day:
        last = min(first + (SLICE - 1) * _ONE_DAY, period.last_day)
        yield Period(first, last)
        first = last + _ONE_DAY


def last_week(now: datetime) -> Period:
    """Return the last complete week, from Monday to Sunday, in UTC."""
    today = now.astimezone(UTC).date()
    monday = today - timedelta(days=today.weekday() + 7)
    return week_of(monday)


def week_of(monday: date) -> Period:
    """Return the week that begins on this day."""
    return Period(monday, monday + 6 * _ONE_DAY)

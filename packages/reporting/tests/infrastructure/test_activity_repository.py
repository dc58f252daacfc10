"""The stored days: one contract suite for memory and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta

import pytest
from pydantic import SecretStr

from tequipy_platform import SystemClock
from tequipy_platform.database import DatabaseSettings, build_database, uuid7
from tequipy_platform.testing import EPOCH, FrozenClock
from tequipy_reporting import DailyActivity, Period, ReportingUnitOfWork
from tequipy_reporting.domain.activity import CountedDay
from tequipy_reporting.infrastructure.repositories import SqlReportingUnitOfWork
from tequipy_reporting.testing import MemoryReportingUnitOfWork

FIRST, DAY = date(2026, 1, 1), timedelta(days=1)
Work = Callable[[], ReportingUnitOfWork]


@pytest.fixture(params=["memory", "postgresql"])
async def work(request: pytest.FixtureRequest) -> AsyncIterator[Work]:
    if request.param == "memory":
        held = MemoryReportingUnitOfWork(FrozenClock())
        yield lambda: held
        return
    url = SecretStr(request.getfixturevalue("database_url"))
    async with build_database(DatabaseSettings(url=url)) as database:
        yield lambda: SqlReportingUnitOfWork(database, SystemClock(), uuid7)


def counted(day: date, events: int, **numbers: int) -> CountedDay:
    return CountedDay(DailyActivity(day, **numbers), events, EPOCH)


async def put(work: Work, *days: CountedDay) -> list[bool]:
    async with work() as unit:
        return [await unit.activity.put(each) for each in days]


async def test_the_days_of_a_period_are_returned(work: Work) -> None:
    """Every number is returned, both ends of the period included, and days without a row are left out."""
    first = counted(FIRST, 10, registrations=1, logins=2, failed_logins=3, active_users=4)
    assert await put(work, counted(FIRST + 2 * DAY, 2**40), first, counted(FIRST - DAY, 1), counted(FIRST + 3 * DAY, 1))
    async with work() as unit:
        period = Period(FIRST, FIRST + 2 * DAY)
        assert await unit.activity.days(period) == [first.activity, DailyActivity(FIRST + 2 * DAY)]
        assert await unit.activity.events(period) == {FIRST: 10, FIRST + 2 * DAY: 2**40}
        assert await unit.activity.days(Period(FIRST + 10 * DAY, FIRST + 11 * DAY)) == []


async def test_a_day_of_more_events_is_kept(work: Work) -> None:
    """A count of as many or more events replaces a day, one of fewer does not."""
    assert await put(work, counted(FIRST, 5, logins=1)) == [True]
    assert await put(work, counted(FIRST, 5, logins=2), counted(FIRST, 4, logins=3)) == [True, False]
    async with work() as unit:
        assert await unit.activity.days(Period(FIRST, FIRST)) == [DailyActivity(FIRST, logins=2)]
    assert await put(work, counted(FIRST, 6, logins=4)) == [True]
    async with work() as unit:
        assert await unit.activity.events(Period(FIRST, FIRST)) == {FIRST: 6}


async def test_of_concurrent_counts_the_one_of_most_events_stays(work: Work) -> None:
    """Twenty processes store the same day at once, in any order."""
    await asyncio.gather(*(put(work, counted(FIRST, events, logins=events)) for events in [7, 3, 20, 1, 12] * 4))
    async with work() as unit:
        assert await unit.activity.days(Period(FIRST, FIRST)) == [DailyActivity(FIRST, logins=20)]

"""The scheduler while the database's clock is set forth and back."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from tequipy_platform.database import Database
from tequipy_platform.messaging import build_scheduler
from tequipy_platform.messaging.models import ScheduleRow

from .scheduling import DAY, NIGHTLY, NOON, OFTEN, SECOND, TASKS, look, occurrences


def resets(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [record.__dict__["tasks"] for record in caplog.records if record.message == "schedule_reset"]


async def test_a_clock_that_was_ahead_stops_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """After a clock that was 1,000 days ahead, tasks run at their next occurrences, and one warning names them."""
    scheduler = build_scheduler(database, TASKS)
    await look(scheduler, NOON)
    wrong = NOON + 1000 * DAY
    await look(scheduler, wrong)
    for seconds in range(1, 25):
        await look(scheduler, NOON + seconds * SECOND)
    latest = datetime(2028, 11, 26, 3, 30, tzinfo=UTC)
    assert await occurrences(database) == [NOON + 10 * SECOND, NOON + 20 * SECOND, wrong]
    assert await occurrences(database, NIGHTLY) == [latest]
    assert resets(caplog) == [[NIGHTLY.name, OFTEN.name]]
    await look(scheduler, datetime(2026, 3, 3, 3, 30, tzinfo=UTC))
    assert await occurrences(database, NIGHTLY) == [datetime(2026, 3, 3, 3, 30, tzinfo=UTC), latest]


async def test_a_clock_that_was_set_back_repeats_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """While the clock passes the same hour a second time, no occurrence is added again; then the schedule goes on."""
    scheduler = build_scheduler(database, TASKS)
    for number in range(6):
        await look(scheduler, NOON + number * 10 * SECOND)
    for number in range(-360, 8):
        await look(scheduler, NOON + number * 10 * SECOND)
    between = [NOON + number * 10 * SECOND for number in range(-359, 1)]
    after = [NOON + number * 10 * SECOND for number in range(1, 8)]
    assert await occurrences(database) == [*between, *after]
    assert len(resets(caplog)) == 1


async def test_a_small_step_forth_and_back_loses_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A clock that is half a minute ahead for a moment costs no occurrence, and is not worth a warning."""
    scheduler = build_scheduler(database, TASKS)
    for seconds in (0, 1, 31, 2, 11, 21, 31, 41):
        await look(scheduler, NOON + seconds * SECOND)
    assert await occurrences(database) == [NOON + seconds * SECOND for seconds in (10, 20, 30, 40)]
    assert resets(caplog) == []


async def test_the_clock_is_the_database_s(database: Database) -> None:
    """Without a test, the time comes from the server: the row's start is the time of its transaction."""
    await build_scheduler(database, TASKS).add_due()
    async with database.sessions() as session:
        age = await session.scalar(select(func.now() - func.max(ScheduleRow.last_occurrence)))
    assert age is not None
    assert timedelta(0) < age < timedelta(minutes=1)

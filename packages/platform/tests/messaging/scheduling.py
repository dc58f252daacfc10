"""Schedules and times that the scheduler's tests share."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import DateTime, literal, select

from tequipy_platform import Crontab, Task
from tequipy_platform.database import Database
from tequipy_platform.database.ids import occurrence_id
from tequipy_platform.messaging import Scheduler
from tequipy_platform.messaging.models import OutboxRow, ScheduleRow

OFTEN = Task("test.often", every=timedelta(seconds=10))
NIGHTLY = Task("test.nightly", every=Crontab(minute="30", hour="3"), queue="reports")
TASKS = (OFTEN, NIGHTLY, Task("test.on_request"))
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


async def look(scheduler: Scheduler, now: datetime) -> float:
    """Let a scheduler look once, with the database's clock at `now`."""
    scheduler._now = literal(now, DateTime(timezone=True))
    return await scheduler.add_due()


async def occurrences(database: Database, task: Task = OFTEN) -> list[datetime]:
    """Return the times of the task's messages, in order; each id is that of its occurrence."""
    async with database.sessions() as session:
        rows = (await session.scalars(select(OutboxRow).where(OutboxRow.task == task.name))).all()
    times = sorted(row.not_before for row in rows)
    assert sorted(row.id for row in rows) == sorted(occurrence_id(task.name, time) for time in times)
    return times


async def schedule_rows(database: Database) -> dict[str, ScheduleRow]:
    async with database.sessions() as session:
        return {row.task: row for row in await session.scalars(select(ScheduleRow))}

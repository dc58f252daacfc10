"""The scheduler on a real PostgreSQL: each occurrence becomes one message, whatever process or clock fails."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import select, text, update

from tequipy_devstack.servers import PostgresServer
from tequipy_platform import Crontab, Task
from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.messaging import build_scheduler
from tequipy_platform.messaging.metrics import OutboxMetrics
from tequipy_platform.messaging.models import OutboxRow, ScheduleRow

from .scheduling import DAY, NIGHTLY, NOON, OFTEN, SECOND, TASKS, look, occurrences, schedule_rows


async def test_an_occurrence_is_an_ordinary_message(database_url: str) -> None:
    """The row has the occurrence's time, no payload, the app's version and a correlation id of its own."""
    async with build_database(DatabaseSettings(url=SecretStr(database_url)), app_version="1.2.3") as database:
        scheduler = build_scheduler(database, TASKS)
        await look(scheduler, NOON)
        await look(scheduler, NOON + 10 * SECOND)
        await look(scheduler, NOON + 20 * SECOND)
        async with database.sessions() as session:
            first, second = (await session.scalars(select(OutboxRow).order_by(OutboxRow.not_before))).all()
    assert (first.task, first.payload, first.state, first.not_before) == (OFTEN.name, {}, "pending", NOON + 10 * SECOND)
    assert (first.schema_version, first.producer_version, first.traceparent) == (1, "1.2.3", None)
    assert first.correlation_id
    assert first.correlation_id != second.correlation_id


async def test_a_new_task_begins_with_its_next_occurrence(database: Database) -> None:
    """Nothing is caught up for a new task, tasks without a schedule have no row, and the pause ends at the next one."""
    scheduler = build_scheduler(database, TASKS)
    assert await look(scheduler, NOON + 4 * SECOND) == 1
    assert await look(scheduler, NOON + 9.75 * SECOND) == 0.25
    assert await occurrences(database) == []
    assert await look(scheduler, NOON + 10 * SECOND) == 1
    assert await occurrences(database) == [NOON + 10 * SECOND]
    assert sorted(await schedule_rows(database)) == [NIGHTLY.name, OFTEN.name]


async def test_frequent_restarts_postpone_nothing(database: Database) -> None:
    """A scheduler that is restarted every 8 s adds each occurrence of a schedule of 10 s."""
    now = NOON + 1 * SECOND
    for _ in range(30):
        scheduler = build_scheduler(database, TASKS)
        for _ in range(8):
            await look(scheduler, now)
            now += SECOND
    expected = [NOON + number * 10 * SECOND for number in range(1, 25)]
    assert await occurrences(database) == [time for time in expected if time < now]


async def test_a_week_away_is_caught_up_once(database: Database) -> None:
    """After a week without a scheduler, each task runs once, for its latest occurrence."""
    await look(build_scheduler(database, TASKS), NOON)
    scheduler = build_scheduler(database, TASKS)
    for seconds in range(3):
        await look(scheduler, NOON + 7 * DAY + (3 + seconds) * SECOND)
    assert await occurrences(database) == [NOON + 7 * DAY]
    assert await occurrences(database, NIGHTLY) == [datetime(2026, 3, 9, 3, 30, tzinfo=UTC)]


async def test_many_schedulers_add_one_message(database_url: str) -> None:
    """Eight schedulers that look at the same times, at once, add one message for each occurrence."""
    settings = DatabaseSettings(url=SecretStr(database_url), pool_size=8)
    async with build_database(settings) as database:
        schedulers = [build_scheduler(database, TASKS) for _ in range(8)]
        for number in range(20):
            await asyncio.gather(*(look(scheduler, NOON + number * 10 * SECOND) for scheduler in schedulers))
        assert await occurrences(database) == [NOON + number * 10 * SECOND for number in range(1, 20)]


async def test_a_scheduler_that_hangs_does_not_stop_another(database: Database) -> None:
    """While one scheduler holds a task's row in a transaction, another adds other tasks; later it adds this one too."""
    frequent = Task("test.frequent", every=timedelta(seconds=5))
    scheduler = build_scheduler(database, [*TASKS, frequent])
    await look(scheduler, NOON)
    async with database.sessions.begin() as session:
        await session.execute(select(ScheduleRow).where(ScheduleRow.task == OFTEN.name).with_for_update())
        await look(scheduler, NOON + 10 * SECOND)
        assert await occurrences(database, frequent) == [NOON + 10 * SECOND]
        assert await occurrences(database) == []
    await look(scheduler, NOON + 11 * SECOND)
    assert await occurrences(database) == [NOON + 10 * SECOND]


@pytest.mark.parametrize(
    ("moment", "left"), [("before_commit", []), ("after_commit", [NOON + 10 * SECOND])], ids=["before", "after"]
)
async def test_a_scheduler_killed_at_its_commit_loses_and_doubles_nothing(
    database: Database, database_url: str, moment: str, left: list[datetime]
) -> None:
    """After `kill -9` before the commit or between commit and notification, the occurrence becomes one message."""
    scheduler = build_scheduler(database, TASKS)
    await look(scheduler, NOON)
    program = Path(__file__).with_name("killed_scheduler.py")
    arguments = (program, database_url, moment, (NOON + 10 * SECOND).isoformat())
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    assert await occurrences(database) == left
    await look(scheduler, NOON + 12 * SECOND)
    assert await occurrences(database) == [NOON + 10 * SECOND]


async def test_rows_of_removed_tasks_are_ignored(database: Database) -> None:
    """A task that is no longer declared runs no more, and its row is left for a release that declares it again."""
    await look(build_scheduler(database, TASKS), NOON)
    await look(build_scheduler(database, [NIGHTLY]), NOON + DAY)
    assert await occurrences(database) == []
    assert len(await occurrences(database, NIGHTLY)) == 1
    assert (await schedule_rows(database))[OFTEN.name].last_occurrence == NOON


async def test_an_idle_scheduler_seldom_writes(database: Database) -> None:
    """Without an occurrence, rows are written once in 10 s; `scheduler_last_tick_timestamp` is the latest time."""
    daily = Task("test.daily", every=DAY)
    scheduler = build_scheduler(database, [daily])
    versions: list[object] = []
    for seconds in range(0, 30, 3):
        await look(scheduler, NOON + SECOND + seconds * SECOND)
        async with database.sessions() as session:
            versions.append(await session.scalar(text("select xmin::text from platform.schedules")))
    assert len(set(versions)) == 3
    registry = CollectorRegistry()
    await OutboxMetrics(database, {}, registry).measure()
    checked_at = (await schedule_rows(database))[daily.name].checked_at
    assert registry.get_sample_value("scheduler_last_tick_timestamp") == checked_at.timestamp()


async def test_a_look_in_the_future_does_not_hide_a_dead_scheduler(database: Database) -> None:
    """A time that was written while the clock was ahead is no last tick."""
    scheduler = build_scheduler(database, TASKS)
    await scheduler.add_due()
    past = datetime.now(UTC) - timedelta(hours=1)
    async with database.sessions.begin() as session:
        for task, checked_at in ((OFTEN, past), (NIGHTLY, past + 1000 * DAY)):
            await session.execute(
                update(ScheduleRow).where(ScheduleRow.task == task.name).values(checked_at=checked_at)
            )
    registry = CollectorRegistry()
    await OutboxMetrics(database, {}, registry).measure()
    assert registry.get_sample_value("scheduler_last_tick_timestamp") == pytest.approx(
        past.timestamp(), rel=0, abs=0.001
    )


async def test_an_occurrence_wakes_the_relay(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay is notified after the commit of an occurrence, and only then."""
    woken: list[Sequence[object]] = []
    monkeypatch.setattr(database, "notify", lambda *arguments: woken.append(arguments))
    scheduler = build_scheduler(database, TASKS)
    await look(scheduler, NOON)
    await look(scheduler, NOON + 9 * SECOND)
    assert woken == []
    await look(scheduler, NOON + 10 * SECOND)
    assert woken == [("tequipy_outbox", "platform")]


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not probe():
            await asyncio.sleep(0.02)


async def test_an_outage_of_the_database_is_survived(
    database_url: str,
    postgres_server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While nobody can log in to the database, the scheduler retries and logs that once; then it continues."""
    caplog.set_level(logging.INFO, "tequipy_platform.messaging.scheduler")
    name = database_url.rpartition("/")[2].partition("?")[0]
    settings = DatabaseSettings(url=SecretStr(database_url))

    def logged(event: str) -> int:
        return sum(record.message == event for record in caplog.records)

    async with build_database(settings) as database:
        scheduler = build_scheduler(database, [Task("test.always", every=SECOND)])
        looks = mock.AsyncMock(side_effect=scheduler.add_due)
        monkeypatch.setattr(scheduler, "add_due", looks)
        running = asyncio.create_task(scheduler.run())
        await until(lambda: logged("occurrence_added") >= 1)
        postgres_server.execute(f"alter database {name} allow_connections false")
        try:
            disconnect = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"  # noqa: S608 -- the test's own name
            postgres_server.execute(disconnect)
            await until(lambda: logged("scheduler_interrupted") >= 1)
            failed = looks.await_count
            await until(lambda: looks.await_count >= failed + 3)
        finally:
            postgres_server.execute(f"alter database {name} allow_connections true")
        before = logged("occurrence_added")
        await until(lambda: logged("occurrence_added") > before)
        scheduler.stop()
        await asyncio.wait_for(running, 20)
    assert (logged("scheduler_interrupted"), logged("scheduler_resumed")) == (1, 1)
    assert (logged("scheduler_started"), logged("scheduler_stopped")) == (1, 1)


async def test_an_outage_of_hours_is_survived(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    """The scheduler still runs after 1,100 failures, which take three hours."""
    monkeypatch.setattr("tequipy_platform.messaging.scheduler._MAX_PAUSE", 0)
    scheduler = build_scheduler(database, TASKS)
    failures = 0

    async def fail() -> float:
        nonlocal failures
        failures += 1
        if failures == 1100:
            scheduler.stop()
        raise ConnectionRefusedError

    monkeypatch.setattr(scheduler, "add_due", fail)
    await scheduler.run()
    assert failures == 1100


@pytest.mark.parametrize("every", [timedelta(0), Crontab(hour="24")])
def test_a_schedule_that_cannot_be_kept_names_its_task(every: timedelta | Crontab) -> None:
    """A wrong schedule is refused at start, by the name of its task."""
    database = build_database(DatabaseSettings(url=SecretStr("postgresql+asyncpg://localhost:1/none")))
    with pytest.raises(ValueError, match=r"^task test\.wrong: the (period|schedule)"):
        build_scheduler(database, [Task("test.wrong", every=every)])

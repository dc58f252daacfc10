"""The scheduler: it turns each occurrence of a scheduled task into one message of the outbox."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_observability import accept_correlation_id
from tequipy_platform._message_spans import start_trace
from tequipy_platform._messages import MESSAGE_SCHEMA
from tequipy_platform._tasks import Task
from tequipy_platform.database import Database
from tequipy_platform.database.ids import occurrence_id
from tequipy_platform.messaging.deliveries import describe
from tequipy_platform.messaging.models import OUTBOX_CHANNEL, SCHEMA, OutboxRow, ScheduleRow
from tequipy_platform.messaging.occurrences import check_schedule, due_occurrence, next_occurrence

POLL_SECONDS: Final = 1.0
"""The longest pause between two looks at the database's clock, so that a step of it has an effect soon."""
_SHORTEST_PAUSE: Final = 0.01
_MAX_PAUSE: Final = 10.0
_MAX_DOUBLINGS: Final = 7
"""More would exceed `_MAX_PAUSE`, and after hours of an outage the range of a float."""
_CHECKED_EVERY: Final = timedelta(seconds=10)
_REPORTED_STEP: Final = timedelta(minutes=1)
"""A clock that was set back by more than this is reported."""

logger = logging.getLogger(__name__)


def build_scheduler(database: Database, tasks: Sequence[Task]) -> "Scheduler":
    """Return a scheduler of those tasks that have a schedule.

    Raises `ValueError` for a schedule that has no occurrences or too many.
    """
    for task in tasks:
        if task.every is not None:
            try:
                check_schedule(task.every)
            except ValueError as error:
                raise ValueError(f"task {task.name}: {error}") from error
    return Scheduler(database, tasks)


class Scheduler:
    """Adds due occurrences to the outbox until it is stopped; any number may run.

    Every time is that of the database's clock. The message of an occurrence has an id that is derived from task and
    time, and is added in the transaction that moves `last_occurrence`; so an occurrence becomes one message, whichever
    scheduler finds it, and whenever a scheduler is killed. After a pause the latest missed occurrence is caught up.
    """

    def __init__(self, database: Database, tasks: Sequence[Task]) -> None:
        self._database = database
        # In the order of the names, so that two schedulers lock rows in the same order.
        self._schedules = {
            task.name: task.every for task in sorted(tasks, key=lambda task: task.name) if task.every is not None
        }
        self._now: ColumnElement[datetime] = func.now()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return after its current transaction."""
        self._stopping.set()

    async def run(self) -> None:
        """Add occurrences when they are due until stopped; an outage of the database is retried and logged once."""
        logger.info("scheduler_started", extra={"tasks": list(self._schedules)})
        failures = 0
        while not self._stopping.is_set():
            try:
                pause = await self.add_due()
            except Exception as error:  # noqa: BLE001 -- any outage may be temporary, and the scheduler must survive it
                failures += 1
                if failures == 1:
                    logger.error("scheduler_interrupted", extra={"error": describe(error)})  # noqa: TRY400 -- an outage needs no traceback
                pause = min(_MAX_PAUSE, 0.1 * 2 ** min(failures, _MAX_DOUBLINGS))
            else:
                if failures:
                    logger.info("scheduler_resumed", extra={"failures": failures})
                failures = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        logger.info("scheduler_stopped")

    async def add_due(self) -> float:
        """Add due occurrences to the outbox, and return the seconds until the next look."""
        added: list[ScheduleRow] = []
        reset: list[str] = []
        async with self._database.sessions.begin() as session:
            now: datetime = (await session.execute(select(self._now))).scalar_one()
            of_ours = select(ScheduleRow).where(ScheduleRow.task.in_(self._schedules)).order_by(ScheduleRow.task)
            rows = (await session.scalars(of_ours)).all()
            await self._start(session, self._schedules.keys() - {row.task for row in rows}, now)
            changing = [row.task for row in rows if self._has_changes(row, now)]
            if changing:
                # Another scheduler that holds a row adds its occurrence, unless it dies; then the next look finds it.
                locking = of_ours.where(ScheduleRow.task.in_(changing)).with_for_update(skip_locked=True)
                for row in await session.scalars(locking.execution_options(populate_existing=True)):
                    if row.last_occurrence > now + _REPORTED_STEP:
                        reset.append(row.task)
                    if await self._move(session, row, now):
                        added.append(row)
        if reset:
            logger.warning("schedule_reset", extra={"tasks": reset})
        for row in added:
            late = (now - row.last_occurrence).total_seconds()
            fields = {"task": row.task, "occurrence": row.last_occurrence.isoformat(), "late_seconds": round(late, 3)}
            logger.info("occurrence_added", extra=fields)
        if added:
            self._database.notify(OUTBOX_CHANNEL, self._database.schemas.get(SCHEMA, SCHEMA))
        return self._pause(now)

    async def _start(self, session: AsyncSession, names: set[str], now: datetime) -> None:
        """Record that new tasks are scheduled from now on; otherwise frequent restarts would postpone them for ever."""
        if names:
            values = [{"task": name, "last_occurrence": now, "checked_at": now} for name in sorted(names)]
            await session.execute(insert(ScheduleRow).values(values).on_conflict_do_nothing())

    def _has_changes(self, row: ScheduleRow, now: datetime) -> bool:
        due = due_occurrence(self._schedules[row.task], row.last_occurrence, now)
        return due is not None or row.last_occurrence > now or abs(now - row.checked_at) >= _CHECKED_EVERY

    async def _move(self, session: AsyncSession, row: ScheduleRow, now: datetime) -> bool:
        """Move a locked row to its occurrence that is due, if any; return whether a message was added for it."""
        due = due_occurrence(self._schedules[row.task], row.last_occurrence, now)
        row.checked_at = now
        row.last_occurrence = due or min(row.last_occurrence, now)
        if due is None:
            return False
        message_id = occurrence_id(row.task, due)
        message = insert(OutboxRow).values(
            id=message_id,
            task=row.task,
            payload={},
            schema_version=MESSAGE_SCHEMA,
            producer_version=self._database.app_version,
            correlation_id=accept_correlation_id(None),
            traceparent=start_trace(row.task, message_id),
            not_before=due,
            created_at=func.now(),
        )
        # After a step of the clock an occurrence may be due a second time.
        added = await session.scalar(message.on_conflict_do_nothing().returning(OutboxRow.id))
        return added is not None

    def _pause(self, now: datetime) -> float:
        upcoming = (next_occurrence(every, now) for every in self._schedules.values())
        pauses = [(occurrence - now).total_seconds() for occurrence in upcoming if occurrence is not None]
        return max(_SHORTEST_PAUSE, min([POLL_SECONDS, *pauses]))

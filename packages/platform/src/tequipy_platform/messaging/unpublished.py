"""The outbox as the relay reads it from PostgreSQL."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid5

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import ColumnElement, Select, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tequipy_platform._messages import Batch, UnpublishedMessage, UnpublishedMessages
from tequipy_platform.database import Database
from tequipy_platform.messaging.models import OUTBOX_CHANNEL, SCHEMA, OutboxRow

MAX_PUBLICATIONS: Final = 10
"""A message published this often becomes a dead letter; with a visibility timeout of 600 s that takes a week."""
_MAX_CLOCK_STEP: Final = timedelta(minutes=1)
"""If a time that the database wrote is further ahead than this, its clock was ahead and has been corrected."""
_RECONNECT_SECONDS: Final = 1.0
_MEASURE_SECONDS: Final = 5.0
_LISTENER_SECONDS: Final = 10.0
"""The interval of checks of the listening connection, and the timeout of each check."""

# Each condition has its own index. Joined by OR they could use none, and each query would read the whole table.
_TASK: Final = and_(OutboxRow.task.is_not(None), OutboxRow.given_up_at.is_(None))
_NEW: Final = and_(_TASK, OutboxRow.published_at.is_(None), OutboxRow.not_before <= func.now())
_REDELIVERY_DUE: Final = and_(
    _TASK, OutboxRow.published_at.is_not(None), OutboxRow.settled_at.is_(None), OutboxRow.redeliver_at <= func.now()
)
_EVENT: Final = and_(OutboxRow.event.is_not(None), OutboxRow.published_at.is_(None))
_ONE_MORE_PUBLICATION: Final[dict[str, Any]] = {"publications": OutboxRow.publications + 1}

logger = logging.getLogger(__name__)


class SqlUnpublishedMessages(UnpublishedMessages):
    """Locks rows by `FOR UPDATE SKIP LOCKED` and is woken by NOTIFY; the context manager runs its listener."""

    def __init__(self, database: Database, *, redelivery: timedelta, registry: CollectorRegistry | None = None) -> None:
        self._database = database
        self._redelivery = redelivery
        self._added = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._unpublished = Gauge("outbox_pending", "Rows that are due and not yet published.", registry=registry)
        self._oldest_age = Gauge("outbox_oldest_age_seconds", "Age of the oldest of them.", registry=registry)
        self._dead_letters = Counter(
            "outbox_given_up", "Messages that became dead letters after too many publications.", registry=registry
        )

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._listen(), name="outbox-listener"),
            asyncio.create_task(self._measure(), name="outbox-measure"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Repeated, because Python 3.11's wait_for, which drivers use for connecting, can lose a cancellation.
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=0.1)

    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn unpublished events into one message for each subscribed task; return the number of events."""
        async with self._database.sessions.begin() as session:
            now = await session.scalar(select(func.now()))
            rows = (await session.scalars(_select_unlocked(_EVENT, OutboxRow.id, limit=limit))).all()
            for row in rows:
                row.published_at = row.settled_at = now
                session.add_all(_message_of(row, task) for task in subscribers.get(str(row.event), ()))
            return len(rows)

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        """Lock due messages for the duration of the block."""
        async with self._database.sessions.begin() as session:
            rows = list(await session.scalars(_select_unlocked(_REDELIVERY_DUE, OutboxRow.redeliver_at, limit=limit)))
            new = _select_unlocked(_NEW, OutboxRow.not_before, OutboxRow.id, limit=limit - len(rows))
            rows += await session.scalars(new)
            exhausted = [row for row in rows if row.publications >= MAX_PUBLICATIONS]
            batch = Batch([_message(row) for row in rows if row.publications < MAX_PUBLICATIONS])
            yield batch
            # The wait doubles: a message may be late only because the queue is long, and must not lengthen it further.
            later = func.now() + self._redelivery * func.power(2, OutboxRow.publications)
            await _mark(session, batch.published, published_at=func.now(), redeliver_at=later, **_ONE_MORE_PUBLICATION)
            await _mark(session, batch.refused, not_before=later, **_ONE_MORE_PUBLICATION)
            await _mark(session, {row.id for row in exhausted}, given_up_at=func.now())
        for row in exhausted:
            self._dead_letters.inc()
            logger.error("message_dead_lettered", extra={"message_id": str(row.id), "task": row.task})

    async def wait(self, at_most: float) -> None:
        """Return when rows were added, or after `at_most` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most):  # not wait_for, which before Python 3.12 loses cancellations
                await self._added.wait()
        self._added.clear()

    async def _measure(self) -> None:
        """Measure the unpublished rows periodically; without a database the last age keeps growing."""
        age = func.extract("epoch", func.now() - func.min(OutboxRow.not_before))
        counts = [select(func.count(), func.coalesce(age, 0)).where(kind) for kind in (_NEW, _EVENT)]
        while True:
            with suppress(Exception):
                await self._reset_future_times()
            with suppress(Exception):
                async with self._database.sessions() as session:
                    tasks, events = [(await session.execute(count)).one() for count in counts]
                self._unpublished.set(tasks[0] + events[0])
                self._oldest_age.set_function(_growing_age(max(tasks[1], events[1])))
            await asyncio.sleep(_MEASURE_SECONDS)

    async def _reset_future_times(self) -> None:
        """Make due at once what the database postponed while its clock was ahead.

        A delay that the application asked for is kept: its row has no failed attempt and no publication.
        """
        now, ahead = func.now(), func.now() + _MAX_CLOCK_STEP
        failed = update(OutboxRow).where(_TASK, OutboxRow.published_at.is_(None), OutboxRow.not_before > ahead)
        missed = update(OutboxRow).where(_TASK, OutboxRow.settled_at.is_(None), OutboxRow.redeliver_at > ahead)
        async with self._database.sessions.begin() as session:
            await session.execute(
                failed.where(OutboxRow.failing_since > ahead).values(not_before=now, failing_since=now),
                execution_options={"synchronize_session": False},
            )
            await session.execute(
                missed.where(OutboxRow.published_at > ahead).values(redeliver_at=now),
                execution_options={"synchronize_session": False},
            )

    async def _listen(self) -> None:
        """Keep a listening connection; without one, the relay's polling finds the rows."""
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001 -- any error may be temporary, and polling continues
                logger.debug("outbox_listener_lost", extra={"error": repr(error)})
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _on_notification(self, _connection: object, _process_id: int, _channel: str, schema: object) -> None:
        """Wake the relay, unless the notification comes from another schema of the same database."""
        if schema in {"", self._database.schemas.get(SCHEMA, SCHEMA)}:  # "": from the trigger of migration 0001
            self._added.set()

    async def _listen_once(self) -> None:
        lost = asyncio.Event()
        async with self._database.direct_connection() as connection:
            connection.add_termination_listener(lambda *_: lost.set())
            await connection.add_listener(OUTBOX_CHANNEL, self._on_notification)
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LISTENER_SECONDS):
                        await lost.wait()
                    return
                # Detects a connection that was cut without a reset, which would stay silent for ever.
                await connection.execute("select 1", timeout=_LISTENER_SECONDS)


def build_unpublished_messages(
    database: Database, *, redelivery: timedelta, registry: CollectorRegistry | None = None
) -> SqlUnpublishedMessages:
    """Return the outbox for the relay; a message that is not settled within `redelivery` is published again.

    `registry` gets `outbox_pending`, `outbox_oldest_age_seconds` and `outbox_given_up_total`.
    """
    return SqlUnpublishedMessages(database, redelivery=redelivery, registry=registry)


def _select_unlocked(due: ColumnElement[bool], *order: InstrumentedAttribute[Any], limit: int) -> Select[OutboxRow]:
    """Return a statement that locks and selects rows which no other relay has locked."""
    return select(OutboxRow).where(due).order_by(*order).limit(limit).with_for_update(skip_locked=True)


def _growing_age(seconds: float) -> Callable[[], float]:
    """Return a function for an age that is `seconds` now and grows with time; an age of 0 stays 0."""
    since = time.monotonic() - float(seconds)
    return lambda: time.monotonic() - since if seconds else 0.0


def _message(row: OutboxRow) -> UnpublishedMessage:
    return UnpublishedMessage(
        row.id,
        str(row.task),
        row.payload,
        row.correlation_id,
        row.traceparent,
        row.failed_attempts,
        row.failing_since,
    )


async def _mark(session: AsyncSession, ids: Collection[UUID], **values: object) -> None:
    if ids:
        marking = update(OutboxRow).where(OutboxRow.id.in_(ids)).values(**values)
        await session.execute(marking, execution_options={"synchronize_session": False})


def _message_of(event: OutboxRow, task: str) -> OutboxRow:
    return OutboxRow(
        id=uuid5(event.id, task),
        task=task,
        payload=event.payload,
        correlation_id=event.correlation_id,
        traceparent=event.traceparent,
        not_before=event.not_before,
        created_at=event.created_at,
    )

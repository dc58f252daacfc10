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

from tequipy_platform.domain.outbox import Batch, PendingMessage, PendingMessages
from tequipy_platform.infrastructure.database import Database
from tequipy_platform.infrastructure.models import OUTBOX_CHANNEL, SCHEMA, OutboxRow

MOST_PUBLICATIONS: Final = 10
"""After so many a message is given up: with a visibility timeout of 600 s they span a week."""
_LARGEST_STEP: Final = timedelta(minutes=1)
"""How far ahead the database's own times may lie; beyond it its clock was ahead and has been put right."""
_RECONNECT_SECONDS: Final = 1.0
_MEASURE_SECONDS: Final = 5.0
_LISTENER_SECONDS: Final = 10.0
"""How often the listening connection is asked whether it lives, and how long it may take to say so."""

# Each has an index of its own: joined by OR they would have none, and the whole table be read at each look.
_TASK: Final = and_(OutboxRow.task.is_not(None), OutboxRow.given_up_at.is_(None))
_NEW: Final = and_(_TASK, OutboxRow.published_at.is_(None), OutboxRow.not_before <= func.now())
_MISSED: Final = and_(
    _TASK, OutboxRow.published_at.is_not(None), OutboxRow.settled_at.is_(None), OutboxRow.redeliver_at <= func.now()
)
_EVENT: Final = and_(OutboxRow.event.is_not(None), OutboxRow.published_at.is_(None))
_ONCE_MORE: Final[dict[str, Any]] = {"publications": OutboxRow.publications + 1}

logger = logging.getLogger("tequipy.relay")


class SqlPendingMessages(PendingMessages):
    """Lends rows by `FOR UPDATE SKIP LOCKED` and is woken by NOTIFY; an async context manager around its listener."""

    def __init__(self, database: Database, *, redelivery: timedelta, registry: CollectorRegistry | None = None) -> None:
        self._database = database
        self._redelivery = redelivery
        self._added = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pending = Gauge("outbox_pending", "Rows that are due and not yet published.", registry=registry)
        self._oldest_age = Gauge("outbox_oldest_age_seconds", "Age of the oldest of them.", registry=registry)
        self._given_up = Counter(
            "outbox_given_up", "Messages published time and again that nobody settled.", registry=registry
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
        # More than once: Python 3.11's wait_for, which drivers connect by, can lose a cancellation.
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=0.1)

    async def spread(self, listeners: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn events that wait into messages for their listeners."""
        async with self._database.sessions.begin() as session:
            now = await session.scalar(select(func.now()))
            rows = (await session.scalars(_free(_EVENT, OutboxRow.id, limit=limit))).all()
            for row in rows:
                row.published_at = row.settled_at = now
                session.add_all(_message_of(row, task) for task in listeners.get(str(row.event), ()))
            return len(rows)

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        """Lend messages that are due for as long as the block lasts."""
        async with self._database.sessions.begin() as session:
            rows = list(await session.scalars(_free(_MISSED, OutboxRow.redeliver_at, limit=limit)))
            new = _free(_NEW, OutboxRow.not_before, OutboxRow.id, limit=limit - len(rows))
            rows += await session.scalars(new)
            hopeless = [row for row in rows if row.publications >= MOST_PUBLICATIONS]
            batch = Batch([_pending(row) for row in rows if row.publications < MOST_PUBLICATIONS])
            yield batch
            # Each time twice as long: a long queue is not a loss, and is not made longer for ever.
            later = func.now() + self._redelivery * func.power(2, OutboxRow.publications)
            await _mark(session, batch.published, published_at=func.now(), redeliver_at=later, **_ONCE_MORE)
            await _mark(session, batch.refused, not_before=later, **_ONCE_MORE)
            await _mark(session, {row.id for row in hopeless}, given_up_at=func.now())
        for row in hopeless:
            self._given_up.inc()
            logger.error("message_given_up", extra={"message_id": str(row.id), "task": row.task})

    async def wait(self, at_most: float) -> None:
        """Return when rows were added, at the latest after `at_most` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most):  # not wait_for, which before Python 3.12 loses cancellations
                await self._added.wait()
        self._added.clear()

    async def _measure(self) -> None:
        """Look now and then at what waits; while the database is away the last look stands, and ages."""
        age = func.extract("epoch", func.now() - func.min(OutboxRow.not_before))
        looks = [select(func.count(), func.coalesce(age, 0)).where(kind) for kind in (_NEW, _EVENT)]
        while True:
            with suppress(Exception):
                await self._forget_future_times()
            with suppress(Exception):
                async with self._database.sessions() as session:
                    tasks, events = [(await session.execute(look)).one() for look in looks]
                self._pending.set(tasks[0] + events[0])
                self._oldest_age.set_function(_ageing(max(tasks[1], events[1])))
            await asyncio.sleep(_MEASURE_SECONDS)

    async def _forget_future_times(self) -> None:
        """Make due what the database put off while its clock was ahead: it would wait until that time has come.

        A delay that was asked for is kept: it comes from no failure and no publication.
        """
        now, ahead = func.now(), func.now() + _LARGEST_STEP
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
        """Keep a connection that listens; while there is none, the relay's poll finds the rows."""
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001 -- whatever is away comes back, and the poll goes on meanwhile
                logger.debug("outbox_listener_lost", extra={"error": repr(error)})
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _on_notification(self, _connection: object, _process_id: int, _channel: str, schema: object) -> None:
        """Wake up, unless the notification comes from the outbox of another schema in the same database."""
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
                # A connection that was cut without a word would stay silent for ever.
                await connection.execute("select 1", timeout=_LISTENER_SECONDS)


def _free(due: ColumnElement[bool], *order: InstrumentedAttribute[Any], limit: int) -> Select[OutboxRow]:
    """Return the statement that takes rows which no other relay holds."""
    return select(OutboxRow).where(due).order_by(*order).limit(limit).with_for_update(skip_locked=True)


def _ageing(seconds: float) -> Callable[[], float]:
    """Return a function that tells how old has become by now what is so old at the moment; what is 0 stays so."""
    since = time.monotonic() - float(seconds)
    return lambda: time.monotonic() - since if seconds else 0.0


def _pending(row: OutboxRow) -> PendingMessage:
    return PendingMessage(
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

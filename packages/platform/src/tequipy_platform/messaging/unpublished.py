"""The outbox as the relay reads it from PostgreSQL."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from packaging.version import InvalidVersion, Version
from prometheus_client import CollectorRegistry
from sqlalchemy import and_, case, func, literal, null, select, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._messages import Batch, MessageState, UnpublishedMessage, UnpublishedMessages
from tequipy_platform._tasks import DEFAULT_QUEUE
from tequipy_platform.database import Database
from tequipy_platform.database.ids import derived_id
from tequipy_platform.messaging.clock_steps import corrections
from tequipy_platform.messaging.measuring import cancel_and_wait, measure_periodically
from tequipy_platform.messaging.message_log import MAX_ERROR_LENGTH, PATIENCE, wait_or_give_up
from tequipy_platform.messaging.metrics import OutboxMetrics
from tequipy_platform.messaging.missed import COLUMNS, lock_missed, select_unlocked
from tequipy_platform.messaging.models import OUTBOX_CHANNEL, SCHEMA, OutboxRow, has_state

_MAX_DOUBLINGS: Final = 6
_HELD_FOR: Final = timedelta(seconds=10)
"""How long an older relay leaves an event of a newer producer to other relays before it looks at it again."""
_LOOK_SECONDS: Final = 1.0
"""How often a relay that has new messages looks for missed ones."""
_RECONNECT_SECONDS: Final = 1.0
_MEASURE_SECONDS: Final = 5.0
_LISTENER_SECONDS: Final = 10.0
"""The interval of checks of the listening connection, and the timeout of each check."""

# Each condition has its own index. Joined by OR they could use none, and each query would read the whole table.
_DUE: Final = and_(
    OutboxRow.task.is_not(None),
    has_state(MessageState.PENDING, MessageState.FAILED),
    OutboxRow.not_before <= func.now(),
)
_EVENT: Final = and_(OutboxRow.event.is_not(None), has_state(MessageState.PENDING), OutboxRow.not_before <= func.now())

logger = logging.getLogger(__name__)


class SqlUnpublishedMessages(UnpublishedMessages):
    """Locks rows by `FOR UPDATE SKIP LOCKED` and is woken by NOTIFY; the context manager runs its listener."""

    def __init__(
        self,
        database: Database,
        *,
        redelivery: timedelta,
        queues: Mapping[str, str] | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._database = database
        self._redelivery = redelivery
        self._queues = queues or {}
        self._added = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looked_at = -_LOOK_SECONDS
        self._metrics = OutboxMetrics(database, self._queues, registry)

    async def __aenter__(self) -> Self:
        measuring = measure_periodically(self._measure, seconds=_MEASURE_SECONDS, event="outbox_measurement_failed")
        self._tasks = [
            asyncio.create_task(self._listen(), name="outbox-listener"),
            asyncio.create_task(measuring, name="outbox-measure"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await cancel_and_wait(self._tasks)

    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn events into messages; the payloads are copied by the database."""
        age = func.now() - func.coalesce(OutboxRow.waiting_since, func.now())
        columns = (OutboxRow.id, OutboxRow.event, OutboxRow.producer_version, age)
        async with self._database.sessions.begin() as session:
            events: list[Any] = []
            # First those that wait for no newer relay, which thousands of others may do at the same time.
            for group in (OutboxRow.waiting_since.is_(None), OutboxRow.waiting_since.is_not(None)):
                if len(events) < limit:
                    due = select_unlocked(columns, and_(_EVENT, group), OutboxRow.id, limit=limit - len(events))
                    events += (await session.execute(due)).all()
            for id_, name, producer, waited in events:
                tasks = subscribers.get(name, ())
                for task in tasks:
                    await session.execute(_add_message(id_, task))
                newer = is_newer(producer, than=self._database.app_version)
                if newer and waited < PATIENCE:
                    await _mark(session, [id_], **_HOLD)
                elif newer and not tasks:
                    await _mark(session, [id_], **_UNHEARD)
                    logger.error("event_dead_lettered", extra={"message_id": str(id_), "event_name": name})
                else:
                    await _mark(session, [id_], **_ENDED)
                    if newer:
                        fields = {"message_id": str(id_), "event_name": name, "producer_version": producer}
                        logger.warning("event_not_seen_by_newer_relay", extra=fields)
            return len(events)

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        """Lock due messages for the duration of the block."""
        async with self._database.sessions.begin() as session:
            due = select_unlocked(COLUMNS, _DUE, OutboxRow.not_before, OutboxRow.id, limit=limit)
            rows = list((await session.execute(due)).all())
            # Not before each publication: looking takes as long as publishing a single message.
            if not rows or (len(rows) < limit and time.monotonic() - self._looked_at >= _LOOK_SECONDS):
                self._looked_at = time.monotonic()
                rows += await lock_missed(session, self._redelivery, limit - len(rows))
            batch = Batch([UnpublishedMessage(*row) for row in rows])
            yield batch
            await self._store(session, batch)

    async def _store(self, session: AsyncSession, batch: Batch) -> None:
        """Store the results of a batch."""
        # The wait doubles: a message may be late only because the queue is long, and must not lengthen it further.
        doublings = func.least(OutboxRow.publications, _MAX_DOUBLINGS)
        by_queue: dict[str, list[UUID]] = {}
        for message in batch.messages:
            if message.id in batch.published:
                by_queue.setdefault(self._queues.get(message.task, DEFAULT_QUEUE), []).append(message.id)
        for queue, ids in by_queue.items():
            await _mark(
                session,
                ids,
                # An attempt without an outcome counts as such when the next one begins.
                state=case(
                    (OutboxRow.state == MessageState.RUNNING, MessageState.RUNNING), else_=MessageState.PUBLISHED
                ),
                queue=queue,
                published_at=func.now(),
                redeliver_at=func.now() + self._redelivery * func.power(2, doublings),
                publications=OutboxRow.publications + 1,
            )
        for id_, error in batch.refused.items():
            values = wait_or_give_up(error[:MAX_ERROR_LENGTH])
            # A lost attempt counts when the next one begins, so its message keeps its state, and is due again later.
            lost = and_(OutboxRow.state == MessageState.RUNNING, values["state"] != MessageState.DEAD)
            values["state"] = case((lost, MessageState.RUNNING), else_=values["state"])
            values["redeliver_at"] = case((lost, values["not_before"]), else_=null())
            refusal = update(OutboxRow).where(OutboxRow.id == id_).values(**values)
            state = await session.scalar(
                refusal.returning(OutboxRow.state), execution_options={"synchronize_session": False}
            )
            if state == MessageState.DEAD:
                logger.error("message_dead_lettered", extra={"message_id": str(id_), "error": error})

    async def wait(self, at_most: float) -> None:
        """Return when rows were added, or after `at_most` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most):  # not wait_for, which before Python 3.12 loses cancellations
                await self._added.wait()
        self._added.clear()

    async def _measure(self) -> None:
        """Measure the outbox; after an error the last ages keep growing."""
        await self._reset_future_times()
        await self._metrics.measure()

    async def _reset_future_times(self) -> None:
        async with self._database.sessions.begin() as session:
            for statement in corrections(self._redelivery):
                await session.execute(statement, execution_options={"synchronize_session": False})

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
        if schema == self._database.schemas.get(SCHEMA, SCHEMA):
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
    database: Database,
    *,
    redelivery: timedelta,
    queues: Mapping[str, str] | None = None,
    registry: CollectorRegistry | None = None,
) -> SqlUnpublishedMessages:
    """Return the outbox for the relay; a message that is missed after `redelivery` is published again.

    `queues` maps the names of tasks to their queues. `registry` gets the metrics of outbox and queues.
    """
    return SqlUnpublishedMessages(database, redelivery=redelivery, queues=queues, registry=registry)


def is_newer(producer: str | None, *, than: str | None) -> bool:
    """Return whether a producer's version is, or may be, newer than the version `than`.

    Two different versions that are not ordered (PEP 440), such as commit hashes, may be newer than each other.
    """
    if producer is None or than is None or producer == than:
        return False
    try:
        return Version(producer) > Version(than)
    except InvalidVersion:
        return True


_HOLD: Final[dict[str, Any]] = {
    "waiting_since": func.coalesce(OutboxRow.waiting_since, func.now()),
    "not_before": func.now() + _HELD_FOR,
    "error": "waits for a newer relay, which may know further subscribers",
}
_ENDED: Final[dict[str, Any]] = {"state": MessageState.DONE, "published_at": func.now(), "settled_at": func.now()}
_UNHEARD: Final[dict[str, Any]] = {
    "state": MessageState.DEAD,
    "settled_at": func.now(),
    "error": "no relay knows a subscriber of this event",
}


async def _mark(session: AsyncSession, ids: Collection[UUID], **values: object) -> None:
    marking = update(OutboxRow).where(OutboxRow.id.in_(ids)).values(**values)
    await session.execute(marking, execution_options={"synchronize_session": False})


def _add_message(event: UUID, task: str) -> Insert:
    """Return a statement that adds an event's message for a task, unless it has been added before."""
    copied = (
        OutboxRow.payload,
        OutboxRow.schema_version,
        OutboxRow.producer_version,
        OutboxRow.correlation_id,
        OutboxRow.traceparent,
        OutboxRow.created_at,
    )
    values = select(literal(derived_id(event, task)), literal(task), *copied).where(OutboxRow.id == event)
    return (
        insert(OutboxRow)
        .from_select(["id", "task", *(column.key for column in copied)], values)
        .on_conflict_do_nothing()
    )

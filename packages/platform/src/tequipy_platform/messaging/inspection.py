"""Messages as operators see them: find and show them, retry and discard dead letters."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, null, or_, select, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._errors import NotFound, Unavailable
from tequipy_platform._messages import MessageState
from tequipy_platform._tasks import DEFAULT_QUEUE
from tequipy_platform.database import Database, SqlTransaction
from tequipy_platform.messaging.message_log import FOREIGN_TASK
from tequipy_platform.messaging.models import OUTBOX_CHANNEL, SCHEMA, AttemptRow, OutboxRow

_UNSETTLED: Final = (MessageState.PENDING, MessageState.PUBLISHED, MessageState.RUNNING, MessageState.FAILED)
_ENDED_WITHOUT_ERROR: Final = (MessageState.RUNNING, MessageState.DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageQuery:
    """Conditions that a message must all meet; without any, every message does.

    `task` is the name of a task or event. Ages count from the end of a dead letter, and from the creation of any other
    message.
    """

    ids: tuple[UUID, ...] | None = None
    correlation_id: str | None = None
    task: str | None = None
    state: MessageState | None = None
    queue: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message or event in the outbox, without its payload."""

    id: UUID
    state: str
    task: str | None
    event: str | None
    queue: str | None
    correlation_id: str | None
    traceparent: str | None
    schema_version: int
    producer_version: str | None
    created_at: datetime
    not_before: datetime
    published_at: datetime | None
    publications: int
    redeliver_at: datetime | None
    attempts: int
    """The number of attempts that have begun."""
    failed_attempts: int
    deaths: int
    started_at: datetime | None
    worker: str | None
    failing_since: datetime | None
    waiting_since: datetime | None
    settled_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt at a message: a failed one, the one that runs, or the successful one."""

    number: int
    started_at: datetime | None
    ended_at: datetime | None
    """None while it runs, and if its process died."""
    worker: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class MessageDetails:
    """A message with its attempts, oldest first, and its payload."""

    message: StoredMessage
    attempts: Sequence[StoredAttempt]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Repair:
    """The dead letters that a person's command has changed."""

    changed: Mapping[str, int]
    """Their number by the name of task or event."""
    foreign: int = 0
    """The number of dead letters that match but cannot be retried, because they are not from the outbox."""


class MessageInspection:
    """Reads the outbox, and changes dead letters, each call in one transaction.

    `queues` maps the names of tasks to their queues, for messages that have not been published yet. All methods raise
    `Unavailable` if the database cannot be reached, or has not been migrated.
    """

    def __init__(self, database: Database, queues: Mapping[str, str]) -> None:
        self._database = database
        self._queues = queues

    async def find(self, query: MessageQuery, *, limit: int) -> Sequence[StoredMessage]:
        """Return up to `limit` messages, newest first."""
        order = _newest_first(query)
        statement = select(*_COLUMNS).where(*self._conditions(query)).order_by(*order, OutboxRow.id.desc()).limit(limit)
        async with self._transaction() as session:
            return [self._message(row) for row in (await session.execute(statement)).mappings()]

    async def get(self, message_id: UUID) -> MessageDetails:
        """Return a message with its attempts and payload; raises `NotFound`."""
        statement = select(*_COLUMNS, OutboxRow.payload).where(OutboxRow.id == message_id)
        failed = select(AttemptRow).where(AttemptRow.message_id == message_id).order_by(AttemptRow.number)
        async with self._transaction() as session:
            row = (await session.execute(statement)).mappings().first()
            if row is None:
                raise NotFound(f"There is no message {message_id}.")
            attempts = [
                StoredAttempt(each.number, each.started_at, each.ended_at, each.worker, each.error)
                for each in await session.scalars(failed)
            ]
        message = self._message(row)
        if message.state in _ENDED_WITHOUT_ERROR and message.started_at is not None:
            attempts.append(
                StoredAttempt(message.attempts, message.started_at, message.settled_at, message.worker, error=None)
            )
        return MessageDetails(message, attempts, row["payload"])

    async def retry(self, query: MessageQuery) -> Repair:
        """Make matching dead letters due at once, with all attempts of their retry policy, and wake the relay."""
        ours = OutboxRow.task.is_distinct_from(FOREIGN_TASK)
        foreign = select(func.count()).where(*self._dead(query), OutboxRow.task == FOREIGN_TASK)
        async with self._transaction() as session:
            changed = await _change(session, [*self._dead(query), ours], _RETRIED)
            skipped = await session.scalar(foreign) or 0
        if changed:
            self._database.notify(OUTBOX_CHANNEL, self._database.schemas.get(SCHEMA, SCHEMA))
        return Repair(changed, foreign=skipped)

    async def discard(self, query: MessageQuery) -> Repair:
        """Give up matching dead letters, which are purged like settled messages."""
        async with self._transaction() as session:
            return Repair(await _change(session, self._dead(query), _DISCARDED))

    def _dead(self, query: MessageQuery) -> list[ColumnElement[bool]]:
        return self._conditions(replace(query, state=MessageState.DEAD))

    def _conditions(self, query: MessageQuery) -> list[ColumnElement[bool]]:
        since = OutboxRow.settled_at if query.state is MessageState.DEAD else OutboxRow.created_at
        conditions: list[ColumnElement[bool]] = []
        if query.ids is not None:
            conditions.append(OutboxRow.id.in_(query.ids))
        if query.correlation_id is not None:
            conditions.append(OutboxRow.correlation_id == query.correlation_id)
        if query.task is not None:
            conditions.append(or_(OutboxRow.task == query.task, OutboxRow.event == query.task))
        if query.state is not None:
            conditions.append(_in_state(query.state))
        if query.queue is not None:
            conditions.append(self._in_queue(query.queue))
        if query.older_than is not None:
            conditions.append(since < func.now() - query.older_than)
        if query.newer_than is not None:
            conditions.append(since >= func.now() - query.newer_than)
        return conditions

    def _in_queue(self, queue: str) -> ColumnElement[bool]:
        """Return the condition that a message was published to the queue, or will be."""
        others = [task for task, its_queue in self._queues.items() if its_queue != queue]
        own = [task for task, its_queue in self._queues.items() if its_queue == queue]
        planned = OutboxRow.task.not_in(others) if queue == DEFAULT_QUEUE else OutboxRow.task.in_(own)
        return or_(OutboxRow.queue == queue, and_(OutboxRow.queue.is_(None), OutboxRow.task.is_not(None), planned))

    def _message(self, row: Mapping[Any, Any]) -> StoredMessage:
        values = {column.key: row[column.key] for column in _COLUMNS}
        if values["queue"] is None and values["task"] not in {None, FOREIGN_TASK}:
            values["queue"] = self._queues.get(values["task"], DEFAULT_QUEUE)
        return StoredMessage(**values)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        try:
            async with SqlTransaction(self._database) as transaction:
                yield transaction.session
        except ProgrammingError as error:  # a table or column does not exist
            raise Unavailable("The database lacks tables of this release: migrate it.") from error


def build_message_inspection(database: Database, *, queues: Mapping[str, str] | None = None) -> MessageInspection:
    """Return what the commands of operators use; `queues` maps the names of tasks to their queues."""
    return MessageInspection(database, queues or {})


def _newest_first(query: MessageQuery) -> list[ColumnElement[Any]]:
    """Return the order that finds the first rows soonest; ids, which have an index, are ordered in time."""
    if query.state is MessageState.DEAD:
        return [OutboxRow.settled_at.desc()]
    # Here the rows may all be old, and a search by id would read the whole table in the order of the index.
    if query.state in _UNSETTLED or query.queue is not None or query.older_than is not None:
        return [OutboxRow.created_at.desc()]
    return []


def _in_state(state: MessageState) -> ColumnElement[bool]:
    """Return the condition in the words of the partial indexes."""
    in_state = OutboxRow.state == state
    if state is MessageState.FAILED:  # events do not fail
        return and_(OutboxRow.task.is_not(None), in_state)
    if state is MessageState.PENDING:
        return or_(and_(OutboxRow.task.is_not(None), in_state), and_(OutboxRow.event.is_not(None), in_state))
    return in_state


_COLUMNS: Final = tuple(getattr(OutboxRow, field.name) for field in fields(StoredMessage))
_RETRIED: Final[dict[str, Any]] = {
    "state": MessageState.PENDING,
    "not_before": func.now(),
    "published_at": null(),
    "publications": 0,
    "redeliver_at": null(),
    "failed_attempts": 0,
    "deaths": 0,
    "failing_since": null(),
    "waiting_since": null(),
    "settled_at": null(),
}
"""`attempts` is kept: a late outcome of an attempt from before must not count as that of a new one."""
_DISCARDED: Final[dict[str, Any]] = {"state": MessageState.DISCARDED, "settled_at": func.now()}


async def _change(
    session: AsyncSession, conditions: Sequence[ColumnElement[bool]], values: Mapping[str, Any]
) -> Mapping[str, int]:
    """Update the rows in one statement; return their number by task or event."""
    # Locked in one order, so that two commands at the same time do not wait for each other's rows.
    locked = select(OutboxRow.id).where(*conditions).order_by(OutboxRow.id).with_for_update().cte("locked")
    name = func.coalesce(OutboxRow.task, OutboxRow.event).label("name")
    changed = update(OutboxRow).where(OutboxRow.id == locked.c.id).values(**values).returning(name).cte("changed")
    counts = select(changed.c.name, func.count()).group_by(changed.c.name).order_by(changed.c.name)
    return dict((await session.execute(counts)).all())

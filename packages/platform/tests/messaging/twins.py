"""The real outbox and its fake behind one interface, with a time that tests can advance."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, text, update

from tequipy_platform import Attempt, MessageLog, UnpublishedMessages
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging import build_message_log, build_unpublished_messages
from tequipy_platform.messaging.models import AttemptRow, OutboxRow
from tequipy_platform.messaging.unpublished import SqlUnpublishedMessages
from tequipy_platform.testing import FrozenClock, MemoryMessage, MemoryMessages
from tequipy_platform.testing.message_log import MemoryMessageLog
from tequipy_platform.testing.unpublished import MemoryUnpublishedMessages

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
REDELIVERY = timedelta(minutes=10)
QUEUES = {"test.do": "default", "test.mail": "email"}
Row = OutboxRow | MemoryMessage


class Twin(ABC):
    """An implementation of both ports, with what tests need to see and change."""

    log: MessageLog
    relay: UnpublishedMessages

    @abstractmethod
    async def add(self, task: str | None = "test.do", **columns: Any) -> UUID:
        """Store a message that is due."""

    @abstractmethod
    async def rows(self) -> Sequence[Row]:
        """Return all rows, ordered by id."""

    @abstractmethod
    async def change(self, row_id: UUID, **columns: Any) -> None:
        """Change columns of a row."""

    @abstractmethod
    async def failures(self, row_id: UUID) -> Sequence[tuple[int, str, bool]]:
        """Return number and error of the failed attempts, and whether their end is known."""

    @abstractmethod
    async def now(self) -> datetime:
        """Return the time by which rows are due."""

    @abstractmethod
    async def advance(self, by: timedelta) -> None:
        """Let time pass."""

    @abstractmethod
    async def reset_future_times(self) -> None:
        """Do what relays do every five seconds."""

    @abstractmethod
    def release(self, version: str | None) -> None:
        """Let the relay be of a release."""

    async def row(self, row_id: UUID) -> Row:
        return next(row for row in await self.rows() if row.id == row_id)

    async def publish(self, *, refuse: Mapping[UUID, str] | None = None, limit: int = 100) -> list[UUID]:
        """Publish a batch, and return its ids in order."""
        async with self.relay.batch(limit) as batch:
            ids = [message.id for message in batch.messages]
            batch.refused.update({id_: error for id_, error in (refuse or {}).items() if id_ in ids})
            batch.published.update(set(ids) - set(batch.refused))
        return ids


class MemoryTwin(Twin):
    """The fake."""

    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.messages = MemoryMessages(self.clock)
        self.log = MemoryMessageLog(self.messages, redelivery=REDELIVERY)
        self.relay: MemoryUnpublishedMessages = MemoryUnpublishedMessages(
            self.messages, redelivery=REDELIVERY, queues=QUEUES
        )

    async def add(self, task: str | None = "test.do", **columns: Any) -> UUID:
        return self.messages.add(columns.pop("payload", {}), task=task, **columns).id

    async def rows(self) -> Sequence[Row]:
        return sorted(self.messages.rows.values(), key=lambda row: row.id)

    async def change(self, row_id: UUID, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self.messages.rows[row_id], name, value)

    async def failures(self, row_id: UUID) -> Sequence[tuple[int, str, bool]]:
        failures = self.messages.rows[row_id].failures
        return [(failure.number, failure.error, failure.ended_at is not None) for failure in failures]

    async def now(self) -> datetime:
        return self.clock.now()

    async def advance(self, by: timedelta) -> None:
        self.clock.advance(by)

    async def reset_future_times(self) -> None:
        self.relay.reset_future_times()

    def release(self, version: str | None) -> None:
        self.relay = MemoryUnpublishedMessages(self.messages, redelivery=REDELIVERY, queues=QUEUES, app_version=version)


class SqlTwin(Twin):
    """PostgreSQL; time passes by moving all stored times into the past."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.log = build_message_log(database, redelivery=REDELIVERY)
        self.relay: SqlUnpublishedMessages = build_unpublished_messages(database, redelivery=REDELIVERY, queues=QUEUES)

    async def add(self, task: str | None = "test.do", **columns: Any) -> UUID:
        row = OutboxRow(id=uuid7(), task=task, payload=columns.pop("payload", {}), **columns)
        row.created_at = await self.now()
        async with self.database.sessions.begin() as session:
            session.add(row)
        return row.id

    async def rows(self) -> Sequence[Row]:
        async with self.database.sessions() as session:
            return (await session.scalars(select(OutboxRow).order_by(OutboxRow.id))).all()

    async def change(self, row_id: UUID, **columns: Any) -> None:
        async with self.database.sessions.begin() as session:
            await session.execute(update(OutboxRow).where(OutboxRow.id == row_id).values(**columns))

    async def failures(self, row_id: UUID) -> Sequence[tuple[int, str, bool]]:
        async with self.database.sessions() as session:
            failures = select(AttemptRow).where(AttemptRow.message_id == row_id).order_by(AttemptRow.number)
            return [
                (failure.number, failure.error, failure.ended_at is not None)
                for failure in await session.scalars(failures)
            ]

    async def now(self) -> datetime:
        async with self.database.sessions() as session:
            now: datetime = (await session.scalars(select(func.now()))).one()
            return now

    async def advance(self, by: timedelta) -> None:
        self.relay._looked_at -= by.total_seconds()
        times = {
            "outbox": [
                "not_before",
                "created_at",
                "published_at",
                "redeliver_at",
                "failing_since",
                "waiting_since",
                "started_at",
                "settled_at",
            ],
            "inbox": ["leased_until", "taken_at"],
        }
        async with self.database.sessions.begin() as session:
            for table, columns in times.items():
                shifted = ", ".join(f"{column} = {column} - cast(:by as interval)" for column in columns)
                await session.execute(text(f"update platform.{table} set {shifted}"), {"by": by})  # noqa: S608 -- constants

    async def reset_future_times(self) -> None:
        await self.relay._reset_future_times()

    def release(self, version: str | None) -> None:
        self.database.app_version = version


def unknown_id() -> UUID:
    return uuid4()


async def begin(twin: Twin, row_id: UUID, *, redelivered: bool = False) -> Attempt:
    """Begin an attempt, which has to be possible."""
    attempt = await twin.log.begin(row_id, "host:1", redelivered=redelivered)
    assert attempt
    return attempt


async def published(twin: Twin, **columns: Any) -> UUID:
    """Store and publish a message."""
    row_id = await twin.add(**columns)
    assert row_id in await twin.publish()
    return row_id

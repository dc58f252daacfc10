"""The outbox with its failed attempts in memory, which the fakes of message log, relay and unit of work share."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tequipy_observability import accept_correlation_id, current_context
from tequipy_platform._clock import Clock, IdSource
from tequipy_platform._events import JSON
from tequipy_platform._message_spans import creation_trace
from tequipy_platform._messages import MESSAGE_SCHEMA, MessageState
from tequipy_platform.testing.clock import CountingIds


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt at a message."""

    number: int
    started_at: datetime | None
    ended_at: datetime | None
    worker: str | None
    error: str


@dataclass(slots=True)
class MemoryMessage:
    """A row of the outbox; its attributes are the columns of the real table."""

    id: UUID
    payload: Mapping[str, JSON]
    created_at: datetime
    not_before: datetime
    task: str | None = None
    event: str | None = None
    schema_version: int = MESSAGE_SCHEMA
    producer_version: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    state: str = MessageState.PENDING
    queue: str | None = None
    published_at: datetime | None = None
    publications: int = 0
    redeliver_at: datetime | None = None
    attempts: int = 0
    failed_attempts: int = 0
    deaths: int = 0
    failing_since: datetime | None = None
    waiting_since: datetime | None = None
    started_at: datetime | None = None
    worker: str | None = None
    error: str | None = None
    settled_at: datetime | None = None
    failures: list[FailedAttempt] = field(default_factory=list)


class MemoryMessages:
    """Rows of the outbox, the handled deliveries of the inbox, and locks of rows.

    A lock is held by the batch of a relay; a change of a locked row waits, as in the database.
    """

    def __init__(self, clock: Clock, new_id: IdSource | None = None) -> None:
        self.rows: dict[UUID, MemoryMessage] = {}
        self.leases: dict[tuple[UUID, str], datetime | None] = {}
        """The deliveries that were handled (None) or are leased until a time."""
        self.taken_at: dict[tuple[UUID, str], datetime] = {}
        self.clock = clock
        self._new_id = new_id or CountingIds()
        self._locks: dict[UUID, asyncio.Event] = {}

    def add(self, payload: Mapping[str, JSON], *, not_before: datetime | None = None, **columns: Any) -> MemoryMessage:  # noqa: ANN401 -- the columns of a row
        """Insert a row with the context of the current request."""
        now, context = self.clock.now(), current_context()
        columns.setdefault("correlation_id", accept_correlation_id(context.correlation_id))
        message_id = self._new_id()
        name = columns.get("task") or columns.get("event") or ""
        if "traceparent" not in columns:
            columns["traceparent"] = creation_trace(name, message_id)
        row = MemoryMessage(message_id, dict(payload), created_at=now, not_before=not_before or now, **columns)
        self.rows[row.id] = row
        return row

    async def unlocked(self, message_id: UUID) -> MemoryMessage | None:
        """Return a row as soon as nobody has locked it, or None if there is none."""
        while message_id in self._locks:
            await self._locks[message_id].wait()
        return self.rows.get(message_id)

    def lock(
        self, due: Callable[[MemoryMessage], bool], order: Callable[[MemoryMessage], Any], limit: int
    ) -> list[MemoryMessage]:
        """Lock and return rows that nobody else has locked."""
        free = sorted((row for row in self.rows.values() if row.id not in self._locks and due(row)), key=order)[:limit]
        self._locks.update((row.id, asyncio.Event()) for row in free)
        return free

    def is_locked(self, message_id: UUID) -> bool:
        """Return whether a row is locked."""
        return message_id in self._locks

    def unlock(self, rows: list[MemoryMessage]) -> None:
        """Release locked rows."""
        for row in rows:
            self._locks.pop(row.id).set()


def wait_or_give_up(row: MemoryMessage, now: datetime, reason: str, *, patience: timedelta) -> None:
    """Make a message that no process can handle yet due again later, or dead after `patience`."""
    row.waiting_since = row.waiting_since or now
    waited = now - row.waiting_since
    row.state, row.settled_at = (MessageState.DEAD, now) if waited >= patience else (MessageState.FAILED, None)
    row.not_before = now + min(timedelta(minutes=1), max(timedelta(seconds=2), waited))
    row.published_at = row.redeliver_at = None
    row.publications = 0
    row.error = reason

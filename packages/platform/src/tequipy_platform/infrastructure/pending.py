"""The outbox as the relay reads it from PostgreSQL."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Final, Self
from uuid import uuid5

from sqlalchemy import func, or_, select, update

from tequipy_platform.domain.outbox import PendingMessage, PendingMessages
from tequipy_platform.infrastructure.database import Database
from tequipy_platform.infrastructure.models import OUTBOX_CHANNEL, OutboxRow

_RECONNECT_SECONDS = 1.0
_MOST_DOUBLINGS: Final = 10

logger = logging.getLogger("tequipy.relay")


class SqlPendingMessages(PendingMessages):
    """Lends rows by `FOR UPDATE SKIP LOCKED` and is woken by NOTIFY; an async context manager around its listener."""

    def __init__(self, database: Database, *, redelivery: timedelta) -> None:
        self._database = database
        self._redelivery = redelivery
        self._added = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen(), name="outbox-listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listener is not None:
            # More than once: Python 3.11's wait_for, which drivers connect by, can lose a cancellation.
            while not self._listener.done():
                self._listener.cancel()
                await asyncio.wait({self._listener}, timeout=0.1)

    async def spread(self, listeners: Mapping[str, Sequence[str]]) -> None:
        """Turn each event that waits into one message for each of its listeners."""
        events = (
            select(OutboxRow)
            .where(OutboxRow.event.is_not(None), OutboxRow.published_at.is_(None))
            .order_by(OutboxRow.id)
            .with_for_update(skip_locked=True)
        )
        async with self._database.sessions.begin() as session:
            now = await session.scalar(select(func.now()))
            for row in (await session.scalars(events)).all():
                row.published_at = row.settled_at = now
                session.add_all(_message_of(row, task) for task in listeners.get(str(row.event), ()))

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Sequence[PendingMessage]]:
        """Lend messages that are due for as long as the block lasts."""
        now = func.now()
        new = OutboxRow.published_at.is_(None) & or_(OutboxRow.not_before.is_(None), OutboxRow.not_before <= now)
        missed = OutboxRow.settled_at.is_(None) & (OutboxRow.redeliver_at <= now)
        due = (
            select(OutboxRow)
            .where(OutboxRow.task.is_not(None), or_(new, missed))
            .order_by(OutboxRow.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._database.sessions.begin() as session:
            rows = (await session.scalars(due)).all()
            yield [
                PendingMessage(row.id, str(row.task), row.payload, row.correlation_id, row.traceparent) for row in rows
            ]
            if rows:
                # Each time twice as long: a long queue is not a loss, and is not made longer for ever.
                patience = self._redelivery * func.power(2, func.least(OutboxRow.publications, _MOST_DOUBLINGS))
                published = update(OutboxRow).where(OutboxRow.id.in_([row.id for row in rows]))
                await session.execute(
                    published.values(
                        published_at=now, publications=OutboxRow.publications + 1, redeliver_at=now + patience
                    ),
                    execution_options={"synchronize_session": False},
                )

    async def wait(self, at_most: float) -> None:
        """Return when rows were added, at the latest after `at_most` seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._added.wait(), at_most)
        self._added.clear()

    async def _listen(self) -> None:
        """Keep a connection that listens; while there is none, the relay's poll finds the rows."""
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001 -- whatever is away comes back, and the poll goes on meanwhile
                logger.debug("outbox_listener_lost", extra={"error": repr(error)})
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        lost = asyncio.Event()
        async with self._database.direct_connection() as connection:
            connection.add_termination_listener(lambda *_: lost.set())
            await connection.add_listener(OUTBOX_CHANNEL, lambda *_: self._added.set())
            await lost.wait()


def _message_of(event: OutboxRow, task: str) -> OutboxRow:
    return OutboxRow(
        id=uuid5(event.id, task),
        task=task,
        payload=event.payload,
        correlation_id=event.correlation_id,
        traceparent=event.traceparent,
        created_at=event.created_at,
    )

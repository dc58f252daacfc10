"""The outcomes of messages in PostgreSQL: settled, to be retried, and old enough to be deleted."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._messages import MessageLog
from tequipy_platform.database import Database
from tequipy_platform.messaging.models import InboxRow, OutboxRow


class SqlMessageLog(MessageLog):
    """Records each outcome in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settle_message(self, message_id: UUID) -> None:
        """Record that a message is settled; a second copy of it that waits in the outbox is then not published."""
        published_at = func.coalesce(OutboxRow.published_at, func.now())
        async with self._database.sessions.begin() as session:
            await session.execute(
                update(OutboxRow)
                .where(OutboxRow.id == message_id)
                .values(settled_at=func.now(), published_at=published_at)
            )

    async def retry_message(self, message_id: UUID, wait: timedelta) -> bool:
        """Schedule an unsettled message for publication after `wait`; return whether there is such a row."""
        async with self._database.sessions.begin() as session:
            await session.execute(
                update(OutboxRow)
                .where(OutboxRow.id == message_id, OutboxRow.settled_at.is_(None))
                .values(
                    published_at=None,
                    redeliver_at=None,
                    publications=0,  # counts publications without an outcome, and this one had one
                    not_before=func.now() + wait,
                    failed_attempts=OutboxRow.failed_attempts + 1,
                    failing_since=func.coalesce(OutboxRow.failing_since, func.now()),
                )
                .execution_options(synchronize_session=False)
            )
            return await session.scalar(select(OutboxRow.id).where(OutboxRow.id == message_id)) is not None

    async def purge_messages(self, *, outbox_age: timedelta, inbox_age: timedelta, batch_size: int) -> None:
        """Delete outbox rows settled, and inbox rows handled, longer ago than the given ages, in batches."""
        more = True
        while more:
            async with self._database.sessions.begin() as session:
                more = await _purge_batch(session, outbox_age=outbox_age, inbox_age=inbox_age, limit=batch_size)


def build_message_log(database: Database) -> SqlMessageLog:
    """Return the log in which a worker records the outcomes of messages."""
    return SqlMessageLog(database)


async def _purge_batch(session: AsyncSession, *, outbox_age: timedelta, inbox_age: timedelta, limit: int) -> bool:
    """Delete up to `limit` expired rows of each table; return whether more may be left.

    Skips rows that another process is deleting.
    """
    outbox_key, inbox_key = OutboxRow.id, tuple_(InboxRow.message_id, InboxRow.handler)
    settled = select(OutboxRow.id).where(OutboxRow.settled_at < func.now() - outbox_age)
    handled = select(InboxRow.message_id, InboxRow.handler).where(InboxRow.taken_at < func.now() - inbox_age)
    full = False
    for table, key, old in ((OutboxRow, outbox_key, settled), (InboxRow, inbox_key, handled)):
        batch = old.limit(limit).with_for_update(skip_locked=True)
        # The rows are returned and counted, because async sessions offer no row count here.
        gone = await session.execute(delete(table).where(key.in_(batch)).returning(literal(1)))
        full = full or len(gone.all()) == limit
    return full

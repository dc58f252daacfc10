"""Outbox and inbox in PostgreSQL, within the transaction of the unit of work."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_observability import current_context
from tequipy_platform.domain.clock import Clock, IdSource
from tequipy_platform.domain.events import JSON, Event
from tequipy_platform.domain.outbox import Inbox, Lease, Outbox
from tequipy_platform.domain.tasks import Delivery
from tequipy_platform.infrastructure.models import InboxRow, OutboxRow


class SqlOutbox(Outbox):
    """Adds rows to the session, which are written at the next flush."""

    def __init__(self, session: AsyncSession, clock: Clock, ids: IdSource) -> None:
        self._session = session
        self._clock = clock
        self._ids = ids

    def add(self, task: str, /, *, not_before: datetime | None = None, **payload: JSON) -> None:
        """Store a message that runs `task` after this transaction commits."""
        row = OutboxRow(task=task, payload=payload)
        if not_before is not None:  # otherwise the column's default, the server's current time, applies
            row.not_before = not_before
        self._insert(row)

    def publish(self, event: Event) -> None:
        """Store an event for the tasks that are subscribed to it."""
        self._insert(OutboxRow(event=event.name, payload=dict(event.payload)))

    def _insert(self, row: OutboxRow) -> None:
        context = current_context()
        row.id = self._ids()
        row.created_at = self._clock.now()
        row.correlation_id = context.correlation_id
        row.traceparent = context.traceparent
        self._session.add(row)


class SqlInbox(Inbox):
    """Claims deliveries by `insert … on conflict`: the primary key decides between concurrent deliveries."""

    def __init__(self, session: AsyncSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def take(self, delivery: Delivery) -> bool:
        """Claim the delivery; wait for a concurrent claim to commit (then False) or roll back (then True)."""
        claim = (
            insert(InboxRow)
            .values(message_id=delivery.id, handler=delivery.task, state="done", taken_at=self._clock.now())
            .on_conflict_do_nothing()
            .returning(InboxRow.message_id)
        )
        return await self._session.scalar(claim) is not None

    async def lease(self, delivery: Delivery, duration: timedelta) -> Lease:
        """Take the lease if no attempt holds it or if it has expired."""
        now = self._clock.now()
        claim = insert(InboxRow).values(
            message_id=delivery.id, handler=delivery.task, state="sending", leased_until=now + duration, taken_at=now
        )
        claim = claim.on_conflict_do_update(
            index_elements=[InboxRow.message_id, InboxRow.handler],
            set_={"leased_until": claim.excluded.leased_until, "taken_at": claim.excluded.taken_at},
            where=(InboxRow.state == "sending") & (InboxRow.leased_until <= now),
        )
        if await self._session.scalar(claim.returning(InboxRow.message_id)) is not None:
            return Lease.TAKEN
        state = await self._session.scalar(
            select(InboxRow.state).where(InboxRow.message_id == delivery.id, InboxRow.handler == delivery.task)
        )
        return Lease.DONE if state == "done" else Lease.HELD

    async def done(self, delivery: Delivery) -> None:
        """Record that the effect has been performed."""
        record = insert(InboxRow).values(
            message_id=delivery.id, handler=delivery.task, state="done", taken_at=self._clock.now()
        )
        await self._session.execute(
            record.on_conflict_do_update(
                index_elements=[InboxRow.message_id, InboxRow.handler], set_={"state": "done", "leased_until": None}
            )
        )

    async def release(self, delivery: Delivery) -> None:
        """Release the lease."""
        await self._session.execute(
            delete(InboxRow).where(
                InboxRow.message_id == delivery.id, InboxRow.handler == delivery.task, InboxRow.state == "sending"
            )
        )


async def settle_message(session: AsyncSession, message_id: UUID) -> None:
    """Record that a message is settled; a second copy of it that waits in the outbox is then not published."""
    published_at = func.coalesce(OutboxRow.published_at, func.now())
    await session.execute(
        update(OutboxRow).where(OutboxRow.id == message_id).values(settled_at=func.now(), published_at=published_at)
    )


async def retry_message(session: AsyncSession, message_id: UUID, wait: timedelta) -> bool:
    """Schedule an unsettled message for publication after `wait`; return whether there is such a row."""
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


async def purge_messages(session: AsyncSession, *, outbox_age: timedelta, inbox_age: timedelta, limit: int) -> bool:
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

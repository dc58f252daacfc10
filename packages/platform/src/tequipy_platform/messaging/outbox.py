"""Outbox and inbox in PostgreSQL, within the transaction of the unit of work."""

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_observability import accept_correlation_id, current_context
from tequipy_platform._clock import Clock, IdSource
from tequipy_platform._events import JSON, Event
from tequipy_platform._message_spans import creation_trace
from tequipy_platform._messages import MESSAGE_SCHEMA, Inbox, Lease, Outbox, check_payload
from tequipy_platform._tasks import Delivery
from tequipy_platform.messaging.models import InboxRow, OutboxRow


class SqlOutbox(Outbox):
    """Adds rows to the session, which are written at the next flush."""

    def __init__(
        self, session: AsyncSession, clock: Clock, new_id: IdSource, *, producer_version: str | None = None
    ) -> None:
        self._session = session
        self._clock = clock
        self._new_id = new_id
        self._producer_version = producer_version
        self.has_rows = False

    def add(self, task: str, /, *, not_before: datetime | None = None, **payload: JSON) -> None:
        """Store a message that runs `task` after this transaction commits."""
        check_payload(task, payload)
        row = OutboxRow(task=task, payload=payload)
        if not_before is not None:  # otherwise the column's default, the server's current time, applies
            row.not_before = not_before
        self._insert(row)

    def publish(self, event: Event) -> None:
        """Store an event for the tasks that are subscribed to it."""
        check_payload(event.name, event.payload)
        self._insert(OutboxRow(event=event.name, payload=dict(event.payload)))

    def _insert(self, row: OutboxRow) -> None:
        context = current_context()
        row.id = self._new_id()
        row.created_at = self._clock.now()
        row.schema_version = MESSAGE_SCHEMA
        row.producer_version = self._producer_version
        # Created here if there is none, so that all attempts have the same.
        row.correlation_id = accept_correlation_id(context.correlation_id)
        row.traceparent = creation_trace(row.task or row.event or "", row.id)
        self._session.add(row)
        self.has_rows = True


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

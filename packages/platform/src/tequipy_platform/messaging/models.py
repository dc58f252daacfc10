"""Platform's tables in the schema `platform`: outbox with failed attempts, inbox, schedules and idempotency keys."""

from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, SmallInteger, func, literal, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tequipy_platform._messages import MessageState
from tequipy_platform.database import COLUMN_TYPES, schema_metadata

SCHEMA: Final = "platform"
"""The schema's name in the models; `DatabaseSettings.schemas` may rename it in the database."""

OUTBOX_CHANNEL: Final = "tequipy_outbox"
"""The channel of PostgreSQL's NOTIFY that wakes the relay."""


class Base(DeclarativeBase):
    """The declarative base of platform's own tables."""

    metadata = schema_metadata(SCHEMA)
    type_annotation_map: ClassVar[dict[Any, Any]] = COLUMN_TYPES


class OutboxRow(Base):
    """A message for one task, or an event that is fanned out to the tasks subscribed to it.

    The broker's message holds only the id: the worker reads the row when an attempt begins, and records the outcome.
    """

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    task: Mapped[str | None]
    event: Mapped[str | None]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    schema_version: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    producer_version: Mapped[str | None]
    """The version of the app that wrote the row."""
    correlation_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    """A value of `MessageState`."""
    queue: Mapped[str | None]
    """The broker's queue; None until the first publication."""
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the row is due: by default at once, by the clock of the server, which also selects due rows."""
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    """The last publication; None while the row waits for one."""
    publications: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    """The number of publications since the last outcome of an attempt."""
    redeliver_at: Mapped[datetime | None]
    """When the broker may have lost the message, or a worker its attempt, so that it may be published again."""
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """The number of attempts that have begun; an outcome names its attempt, so that a late one changes nothing."""
    failed_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """The number of failed attempts, for the retry policy; a retry by a person starts again at 0."""
    deaths: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    """The number of failed attempts that ended without an outcome, because their process was killed."""
    failing_since: Mapped[datetime | None]
    """When the first attempt failed; the lifetime of the retry policy counts from here."""
    waiting_since: Mapped[datetime | None]
    """When the message was first found to need a newer process or another broker configuration."""
    started_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    """Host and process id of the last attempt."""
    error: Mapped[str | None]
    """The last error, as type and text."""
    settled_at: Mapped[datetime | None]
    """When the message was done, dead or discarded."""

    __table_args__ = (
        CheckConstraint("num_nonnulls(task, event) = 1", name="task_or_event"),
        CheckConstraint(
            "state in ('pending', 'published', 'running', 'failed', 'done', 'dead', 'discarded')", name="state"
        ),
        # For the relay's queries, each in the order of its result. Settled rows are in none of these indexes.
        Index(
            "ix_outbox_due",
            "not_before",
            "id",
            postgresql_where=text("task IS NOT NULL AND state IN ('pending', 'failed')"),
        ),
        Index("ix_outbox_events", "id", postgresql_where=text("event IS NOT NULL AND state = 'pending'")),
        Index("ix_outbox_published", "queue", "published_at", postgresql_where=text("state = 'published'")),
        Index("ix_outbox_running", "redeliver_at", postgresql_where=text("state = 'running'")),
        # The latest publication in each queue that a worker has received: older messages have left the queue.
        Index("ix_outbox_started", "queue", "published_at", postgresql_where=text("started_at IS NOT NULL")),
        # For operators.
        Index("ix_outbox_correlation_id", "correlation_id", postgresql_where=text("correlation_id IS NOT NULL")),
        Index("ix_outbox_dead", "settled_at", postgresql_where=text("state = 'dead'")),
        # For the purge.
        Index("ix_outbox_settled_at", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
    )


def has_state(*states: MessageState) -> ColumnElement[bool]:
    """Return the condition that a row of the outbox has one of the states, which are written into the statement.

    A plan that PostgreSQL keeps for all values of a parameter cannot use an index whose condition names the state.
    """
    written = [literal(state.value, OutboxRow.state.type, literal_execute=True) for state in states]
    return OutboxRow.state.in_(written) if len(written) > 1 else OutboxRow.state == written[0]


class AttemptRow(Base):
    """A failed attempt at a message; a successful one is described by the message's row."""

    __tablename__ = "attempts"

    message_id: Mapped[UUID] = mapped_column(ForeignKey(OutboxRow.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    """None if the process of the attempt died, because nobody knows when."""
    worker: Mapped[str | None]
    error: Mapped[str]


class InboxRow(Base):
    """A handled delivery: `state` is `done`, or `sending` while an attempt holds a lease until `leased_until`."""

    __tablename__ = "inbox"

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    handler: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    leased_until: Mapped[datetime | None]
    taken_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (CheckConstraint("state in ('sending', 'done')", name="state"),)


class ScheduleRow(Base):
    """The last occurrence of a scheduled task that became a message."""

    __tablename__ = "schedules"

    task: Mapped[str] = mapped_column(primary_key=True)
    last_occurrence: Mapped[datetime]
    checked_at: Mapped[datetime]
    """When a scheduler last looked at the schedule."""


class IdempotencyKeyRow(Base):
    """A request that a caller may repeat with its key, and the response that was committed with its effect."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes]
    """The digest of the request's body."""
    response: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(index=True)

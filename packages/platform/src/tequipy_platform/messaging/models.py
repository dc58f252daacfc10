"""Platform's tables, outbox and inbox, in the schema `platform`."""

from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, SmallInteger, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tequipy_platform.database import COLUMN_TYPES, schema_metadata

SCHEMA: Final = "platform"
"""The schema's name in the models; `DatabaseSettings.schemas` may rename it in the database."""

OUTBOX_CHANNEL: Final = "tequipy_outbox"
"""The channel of PostgreSQL's NOTIFY that the outbox's insert trigger uses."""


class Base(DeclarativeBase):
    """The declarative base of platform's own tables."""

    metadata = schema_metadata(SCHEMA)
    type_annotation_map: ClassVar[dict[Any, Any]] = COLUMN_TYPES


class OutboxRow(Base):
    """A message for one task, or an event that is fanned out to the tasks subscribed to it."""

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    task: Mapped[str | None]
    event: Mapped[str | None]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    correlation_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the row is due: by default at once, by the clock of the server, which also selects due rows."""
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    publications: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    redeliver_at: Mapped[datetime | None]
    """When a message that is not settled is published again, because the broker may have lost it."""
    settled_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    """When the message became a dead letter, after too many publications or refusals; a person has to look at it."""
    failed_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    failing_since: Mapped[datetime | None]
    """When the first attempt failed; the lifetime of the retry policy counts from here."""

    __table_args__ = (
        CheckConstraint("num_nonnulls(task, event) = 1", name="task_or_event"),
        # For the relay's queries, each in the order of its result. Settled rows are in none of these indexes.
        Index(
            "ix_outbox_pending",
            "not_before",
            "id",
            postgresql_where=text("task IS NOT NULL AND published_at IS NULL AND given_up_at IS NULL"),
        ),
        Index("ix_outbox_events", "id", postgresql_where=text("event IS NOT NULL AND published_at IS NULL")),
        Index(
            "ix_outbox_unsettled",
            "redeliver_at",
            postgresql_where=text("published_at IS NOT NULL AND settled_at IS NULL AND given_up_at IS NULL"),
        ),
        # For the purge.
        Index("ix_outbox_settled_at", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
    )


class InboxRow(Base):
    """A handled delivery: `state` is `done`, or `sending` while an attempt holds a lease until `leased_until`."""

    __tablename__ = "inbox"

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    handler: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    leased_until: Mapped[datetime | None]
    taken_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (CheckConstraint("state in ('sending', 'done')", name="state"),)

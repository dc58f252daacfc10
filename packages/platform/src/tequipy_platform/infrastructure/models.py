"""The tables of the ground, in the schema `platform`, and the conventions that every package's tables follow."""

from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, MetaData, SmallInteger, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA: Final = "platform"
"""The schema's name in the models; `DatabaseSettings.schemas` may give it another one in the database."""

OUTBOX_CHANNEL: Final = "tequipy_outbox"
"""The channel on which the outbox's insert trigger notifies (PostgreSQL LISTEN)."""


def schema_metadata(schema: str) -> MetaData:
    """Return the metadata for a package's schema; every constraint has a name that a migration can drop it by."""
    return MetaData(
        schema=schema,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )


COLUMN_TYPES: Final[dict[Any, Any]] = {datetime: DateTime(timezone=True), str: Text(), UUID: Uuid()}
"""A declarative base's `type_annotation_map`: times are aware, strings have no arbitrary length."""


class Base(DeclarativeBase):
    """The base of platform's own tables."""

    metadata = schema_metadata(SCHEMA)
    type_annotation_map: ClassVar[dict[Any, Any]] = COLUMN_TYPES


class OutboxRow(Base):
    """What must follow a commit: one message for a task, or one for each task that names the event."""

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    task: Mapped[str | None]
    event: Mapped[str | None]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    correlation_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it is due; by default at once, by the server's clock, which is the one that it is looked for by."""
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    publications: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    redeliver_at: Mapped[datetime | None]
    """When it is published again unless it is settled by then: a broker can lose what it was given."""
    settled_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    """When it had been published, or refused, too often without an end: it waits for a person."""
    failed_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    failing_since: Mapped[datetime | None]
    """When its first attempt failed: a retry policy's lifetime counts from there."""

    __table_args__ = (
        CheckConstraint("num_nonnulls(task, event) = 1", name="task_or_event"),
        # What the relay looks for, each in the order in which it is taken: none grows with what is over.
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
        # What the purge looks for.
        Index("ix_outbox_settled_at", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
    )


class InboxRow(Base):
    """What has been handled: `state` is `done`, or `sending` while an attempt holds the lease until `leased_until`."""

    __tablename__ = "inbox"

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    handler: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    leased_until: Mapped[datetime | None]
    taken_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (CheckConstraint("state in ('sending', 'done')", name="state"),)

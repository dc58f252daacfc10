"""SQLAlchemy models of reporting's tables, in the schema `reporting`."""

from datetime import date, datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tequipy_platform.database import COLUMN_TYPES, schema_metadata
from tequipy_reporting.infrastructure.settings import SCHEMA


class Base(DeclarativeBase):
    """The base class of reporting's models."""

    metadata = schema_metadata(SCHEMA)
    type_annotation_map: ClassVar = COLUMN_TYPES


class ReportRow(Base):
    """A report; the account that requested it is in another schema, and may be erased."""

    __tablename__ = "reports"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    format: Mapped[str]
    first_day: Mapped[date]
    last_day: Mapped[date]
    requested_by: Mapped[UUID | None]
    status: Mapped[str]
    progress: Mapped[float]
    error_code: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    enqueued_at: Mapped[datetime | None]
    message_id: Mapped[UUID | None]
    attempt: Mapped[UUID | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    storage_key: Mapped[str | None] = mapped_column(unique=True)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("status in ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')", name="status"),
        CheckConstraint("(status = 'done') = (storage_key is not null)", name="file_of_done"),
        Index("ix_reports_requested_by", "requested_by"),
        # At most one report of an account has its turn.
        Index(
            "uq_reports_turn",
            "requested_by",
            unique=True,
            postgresql_where=text("status in ('queued', 'running') and enqueued_at is not null"),
        ),
        Index("ix_reports_finished_at", "finished_at", postgresql_where=text("finished_at is not null")),
    )


class DailyActivityRow(Base):
    """The activity of a day in UTC, and the number of events of the audit from which it was counted."""

    __tablename__ = "daily_activity"

    day: Mapped[date] = mapped_column(primary_key=True)
    events: Mapped[int] = mapped_column(BigInteger)
    registrations: Mapped[int] = mapped_column(BigInteger)
    logins: Mapped[int] = mapped_column(BigInteger)
    failed_logins: Mapped[int] = mapped_column(BigInteger)
    active_users: Mapped[int] = mapped_column(BigInteger)
    counted_at: Mapped[datetime]

"""Reports: what they cover, how far they are, and the rules for both."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

from tequipy_platform import JSON, Invalid, StoredObject
from tequipy_reporting.domain.policy import MAX_DAYS

KEY_PREFIX: Final = "reports"
"""The first segment of the keys of all files in the object storage."""


class ReportKind(StrEnum):
    """What a report shows."""

    USER_ACTIVITY = "user_activity"


class ReportFormat(StrEnum):
    """The format of a report's file."""

    CSV = "csv"
    PDF = "pdf"

    @property
    def media_type(self) -> str:
        """The media type of a file."""
        return "text/csv; charset=utf-8" if self is ReportFormat.CSV else "application/pdf"


class ReportStatus(StrEnum):
    """How far a report is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


UNFINISHED: Final = (ReportStatus.QUEUED, ReportStatus.RUNNING)


class ReportFailure(StrEnum):
    """Why a report has failed."""

    STORAGE_UNAVAILABLE = "storage_unavailable"
    """The object storage was away or full for too long."""
    TOO_LARGE = "too_large"
    """The file would exceed `ReportPolicy.max_bytes`."""
    TIMED_OUT = "timed_out"
    """An attempt took longer than `ReportPolicy.max_duration`."""
    INTERRUPTED = "interrupted"
    """Its processes were killed too often, or its data could not be read for too long."""
    INTERNAL_ERROR = "internal_error"
    """The service has a fault; its log tells more."""


@dataclass(frozen=True, slots=True)
class Period:
    """The days that a report covers, the first and the last included."""

    first_day: date
    last_day: date

    @property
    def since(self) -> datetime:
        """The beginning of the first day in UTC."""
        return datetime.combine(self.first_day, time(), UTC)

    @property
    def until(self) -> datetime:
        """The end of the last day in UTC, exclusive."""
        return datetime.combine(self.last_day, time(), UTC) + timedelta(days=1)

    def check(self, today: date) -> None:
        """Raise `Invalid` unless the days are in order, at most 366, and none of them is in the future."""
        faults: list[JSON] = [
            {"pointer": pointer, "code": code, "detail": detail} for pointer, code, detail in self._faults(today)
        ]
        if faults:
            raise Invalid(errors=faults)

    def _faults(self, today: date) -> Iterator[tuple[str, str, str]]:
        if self.last_day < self.first_day:
            yield "/to", "before_from", "The last day should not be before the first one."
        elif (self.last_day - self.first_day).days >= MAX_DAYS:
            yield "/to", "period_too_long", f"A period has at most {MAX_DAYS} days."
        if self.first_day > today:
            yield "/from", "in_the_future", "The first day should not be in the future (UTC)."
        elif self.last_day > today:
            yield "/to", "in_the_future", "The last day should not be in the future (UTC)."


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was requested, and how far it is."""

    id: UUID
    kind: ReportKind
    format: ReportFormat
    period: Period
    requested_by: UUID | None
    """The account that requested it; None after the account was erased."""
    created_at: datetime
    updated_at: datetime
    """The time of the last change, progress included."""
    status: ReportStatus = ReportStatus.QUEUED
    progress: float = 0.0
    """The part that has been written, from 0 to 1."""
    error_code: ReportFailure | None = None
    enqueued_at: datetime | None = None
    """When its message was added to the outbox; None while it waits for its turn among the account's reports."""
    message_id: UUID | None = None
    """The message whose attempt runs, or was the last to run."""
    attempt: UUID | None = None
    """The attempt that runs, or was the last to run."""
    started_at: datetime | None = None
    """When the first attempt began."""
    finished_at: datetime | None = None
    storage_key: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether it waits or runs."""
        return self.status in UNFINISHED

    @property
    def names_requester(self) -> bool:
        """Whether it has a file that names the account that requested it."""
        return self.format is ReportFormat.PDF and self.file is not None

    @property
    def folder(self) -> str:
        """The prefix of the keys of its files in the object storage."""
        return folder_of(self.id)

    @property
    def filename(self) -> str:
        """The name under which its file is downloaded."""
        return f"{self.kind}_{self.period.first_day}_{self.period.last_day}.{self.format}"

    @property
    def file(self) -> StoredObject | None:
        """Its file in the object storage; None unless it is done."""
        if self.storage_key is None or self.size_bytes is None:
            return None
        return StoredObject(self.storage_key, self.size_bytes, self.finished_at or self.created_at, self.sha256)

    @property
    def state_tag(self) -> str:
        """A digest of everything about it that callers see."""
        shown = (self.id, self.status, self.progress, self.error_code, self.finished_at, self.size_bytes)
        return sha256("|".join(map(str, shown)).encode()).hexdigest()[:32]


def folder_of(report_id: UUID) -> str:
    """Return the prefix of the keys of a report's files."""
    return f"{KEY_PREFIX}/{report_id}/"


def key_of(report: Report, attempt: UUID) -> str:
    """Return the key of the file of an attempt; no two attempts share one."""
    return f"{report.folder}{attempt}.{report.format}"

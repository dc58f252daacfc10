"""Repositories of reporting, and the unit of work that combines them in one transaction."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from tequipy_platform import Page, PageRequest, UnitOfWork
from tequipy_reporting.domain.activity import CountedDay, DailyActivity
from tequipy_reporting.domain.reports import Period, Report, ReportFailure


class Reports(ABC):
    """Reports; at most one unfinished report of an account is enqueued (`enqueued_at`)."""

    @abstractmethod
    async def lock(self, user_id: UUID) -> None:
        """Serialise with other transactions over reports of this account; take it before rows are changed."""

    @abstractmethod
    async def add(self, report: Report) -> None:
        """Store a new report."""

    @abstractmethod
    async def get(self, report_id: UUID) -> Report | None:
        """Return a report, or None."""

    @abstractmethod
    async def page(self, request: PageRequest) -> Page[Report]:
        """Return a page of all reports, the newest first."""

    @abstractmethod
    async def of(self, user_id: UUID, *, unfinished: bool = False) -> Sequence[Report]:
        """Return the reports that an account has requested, or its unfinished ones, oldest first."""

    @abstractmethod
    async def enqueue(self, report_id: UUID, *, at: datetime) -> None:
        """Record that the message of a waiting report is added to the outbox."""

    @abstractmethod
    async def begin(self, report_id: UUID, attempt: UUID, *, message_id: UUID, at: datetime) -> Report | None:
        """Let an attempt run the report and return it, with progress 0.

        None if the report has ended or does not exist, or if an attempt of another message runs it. An earlier attempt
        of the same message is superseded.
        """

    @abstractmethod
    async def advance(self, report_id: UUID, attempt: UUID, progress: float, *, at: datetime) -> bool:
        """Record the progress of a running attempt; return False if it may not go on.

        That is because the report was cancelled or deleted, or because another attempt has begun.
        """

    @abstractmethod
    async def requeue(self, report_id: UUID, attempt: UUID, *, at: datetime) -> bool:
        """Let the report wait for its next attempt; return False if this attempt does not run it."""

    @abstractmethod
    async def complete(
        self, report_id: UUID, attempt: UUID, *, at: datetime, storage_key: str, size_bytes: int, sha256: str
    ) -> bool:
        """End the report as done, with its file; return False if this attempt does not run it."""

    @abstractmethod
    async def fail(self, report_id: UUID, attempt: UUID, error_code: ReportFailure, *, at: datetime) -> bool:
        """End the report as failed; return False if this attempt does not run it."""

    @abstractmethod
    async def cancel(self, report_id: UUID, *, at: datetime) -> bool:
        """End an unfinished report as cancelled; return False if it has ended."""

    @abstractmethod
    async def expire(self, report_id: UUID, *, at: datetime) -> bool:
        """Make a report that is done an expired one without a file; return False if it is not done."""

    @abstractmethod
    async def delete(self, report_id: UUID) -> None:
        """Delete a report."""

    @abstractmethod
    async def forget(self, user_id: UUID) -> None:
        """Remove the account from all of its reports."""

    @abstractmethod
    async def done_before(self, time: datetime, *, limit: int) -> Sequence[Report]:
        """Return up to `limit` reports that were done before that time."""

    @abstractmethod
    async def stuck(self, *, before: datetime, limit: int) -> Sequence[Report]:
        """Return up to `limit` unfinished reports whose turn came, and that have not changed since before that time."""

    @abstractmethod
    async def recorded(self, keys: Collection[str]) -> Collection[str]:
        """Return those of these keys that are the key of a report's file."""

    @abstractmethod
    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` reports that ended before that time and have no file; return the number."""


class Activity(ABC):
    """The activity of each day that was counted."""

    @abstractmethod
    async def days(self, period: Period) -> Sequence[DailyActivity]:
        """Return the stored days of a period, in order."""

    @abstractmethod
    async def events(self, period: Period) -> Mapping[date, int]:
        """Return the number of events from which each stored day of a period was counted."""

    @abstractmethod
    async def put(self, counted: CountedDay) -> bool:
        """Store a day, or replace it; return False, and keep it, if it was counted from more events."""


class ReportingUnitOfWork(UnitOfWork):
    """A transaction over all repositories of reporting."""

    reports: Reports
    activity: Activity

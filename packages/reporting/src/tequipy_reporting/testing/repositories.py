"""The repositories in memory."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from tequipy_platform import Clock, Page, PageRequest
from tequipy_platform.testing import CountingIds, MemoryUnitOfWork
from tequipy_reporting.domain.reports import Report, ReportFailure, ReportStatus
from tequipy_reporting.domain.repositories import ReportingUnitOfWork, Reports
from tequipy_reporting.testing.activity import MemoryActivity


class MemoryReports(Reports):
    """Stores reports by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Report] = {}

    async def lock(self, user_id: UUID) -> None:
        """Do nothing: units of work run one after the other."""

    async def add(self, report: Report) -> None:
        """Store a report."""
        self.rows[report.id] = report

    async def get(self, report_id: UUID) -> Report | None:
        """Return a report."""
        return self.rows.get(report_id)

    async def page(self, request: PageRequest) -> Page[Report]:
        """Return a page of reports, the greatest ids first."""
        rows = sorted(self.rows.values(), key=attrgetter("id"), reverse=True)
        rows = [row for row in rows if request.after is None or row.id < request.after]
        return Page.of(rows[: request.rows], request, attrgetter("id"))

    async def of(self, user_id: UUID, *, unfinished: bool = False) -> Sequence[Report]:
        """Return the reports of an account."""
        return self._found(lambda row: row.requested_by == user_id and (row.unfinished or not unfinished), order="id")

    async def enqueue(self, report_id: UUID, *, at: datetime) -> None:
        """Change a waiting report."""
        self._change(report_id, lambda row: row.status is ReportStatus.QUEUED, enqueued_at=at, updated_at=at)

    async def begin(self, report_id: UUID, attempt: UUID, *, message_id: UUID, at: datetime) -> Report | None:
        """Change the report unless another message's attempt runs it, and return it."""

        def free(row: Report) -> bool:
            runs_here = row.status is ReportStatus.RUNNING and row.message_id == message_id
            return row.status is ReportStatus.QUEUED or runs_here

        row = self.rows.get(report_id)
        begun = self._change(
            report_id,
            free,
            status=ReportStatus.RUNNING,
            attempt=attempt,
            message_id=message_id,
            progress=0.0,
            started_at=row.started_at or at if row else at,
            updated_at=at,
        )
        return self.rows[report_id] if begun else None

    async def advance(self, report_id: UUID, attempt: UUID, progress: float, *, at: datetime) -> bool:
        """Change the progress."""
        return self._change(report_id, _runs(attempt), progress=progress, updated_at=at)

    async def requeue(self, report_id: UUID, attempt: UUID, *, at: datetime) -> bool:
        """Change the status, and the progress to 0."""
        return self._change(report_id, _runs(attempt), status=ReportStatus.QUEUED, progress=0.0, updated_at=at)

    async def complete(
        self, report_id: UUID, attempt: UUID, *, at: datetime, storage_key: str, size_bytes: int, sha256: str
    ) -> bool:
        """Add the file, and set the progress to 1."""
        return self._change(
            report_id,
            _runs(attempt),
            status=ReportStatus.DONE,
            progress=1.0,
            finished_at=at,
            updated_at=at,
            storage_key=storage_key,
            size_bytes=size_bytes,
            sha256=sha256,
        )

    async def fail(self, report_id: UUID, attempt: UUID, error_code: ReportFailure, *, at: datetime) -> bool:
        """Add the error code."""
        return self._change(
            report_id,
            _runs(attempt),
            status=ReportStatus.FAILED,
            error_code=error_code,
            finished_at=at,
            updated_at=at,
        )

    async def cancel(self, report_id: UUID, *, at: datetime) -> bool:
        """Change an unfinished report."""
        return self._change(
            report_id,
            attrgetter("unfinished"),
            status=ReportStatus.CANCELLED,
            finished_at=at,
            updated_at=at,
        )

    async def expire(self, report_id: UUID, *, at: datetime) -> bool:
        """Change a report with a file."""
        return self._change(report_id, _is_done, status=ReportStatus.EXPIRED, storage_key=None, updated_at=at)

    async def delete(self, report_id: UUID) -> None:
        """Delete a report."""
        self.rows.pop(report_id, None)

    async def forget(self, user_id: UUID) -> None:
        """Change the reports of an account."""
        for row in await self.of(user_id):
            self._change(row.id, lambda _: True, requested_by=None)

    async def done_before(self, time: datetime, *, limit: int) -> Sequence[Report]:
        """Return reports with a file."""
        found = self._found(
            lambda row: _is_done(row) and row.finished_at is not None and row.finished_at < time, order="finished_at"
        )
        return found[:limit]

    async def stuck(self, *, before: datetime, limit: int) -> Sequence[Report]:
        """Return unfinished reports that have not changed, the oldest change first."""
        found = self._found(
            lambda row: row.unfinished and row.enqueued_at is not None and row.updated_at < before, order="updated_at"
        )
        return found[:limit]

    async def recorded(self, keys: Collection[str]) -> Collection[str]:
        """Return the keys of files that are recorded."""
        return {row.storage_key for row in self.rows.values() if row.storage_key is not None} & set(keys)

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete reports without a file."""
        found = self._found(
            lambda row: row.finished_at is not None and row.finished_at < before and not _is_done(row), order="id"
        )
        for row in found[:limit]:
            del self.rows[row.id]
        return len(found[:limit])

    def _found(self, condition: Callable[[Report], bool], *, order: str) -> list[Report]:
        return sorted((row for row in self.rows.values() if condition(row)), key=attrgetter(order))

    def _change(self, report_id: UUID, condition: Callable[[Report], bool], **values: Any) -> bool:  # noqa: ANN401 -- fields
        """Change a report if it fulfils the condition; return whether it did."""
        row = self.rows.get(report_id)
        if row is None or not condition(row):
            return False
        self.rows[report_id] = replace(row, **values)
        return True


def _runs(attempt: UUID) -> Callable[[Report], bool]:
    return lambda row: row.status is ReportStatus.RUNNING and row.attempt == attempt


def _is_done(row: Report) -> bool:
    return row.status is ReportStatus.DONE


class MemoryReportingUnitOfWork(MemoryUnitOfWork, ReportingUnitOfWork):
    """A unit of work in memory; concurrent ones run one after the other.

    A test can read the stored reports in `work.reports.rows`, and the messages in `work.outbox.tasks`. `new_id` returns
    numbered ids for new reports and attempts.
    """

    reports: MemoryReports
    activity: MemoryActivity

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.new_id = CountingIds()
        self.reports = MemoryReports()
        self.activity = MemoryActivity()

    def tables(self) -> Sequence[dict[Any, Any] | list[Any]]:
        """Return every collection that a rollback restores."""
        return (*super().tables(), self.reports.rows, self.activity.rows)

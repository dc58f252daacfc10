"""Reports on PostgreSQL."""

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform import Page, PageRequest
from tequipy_platform.database import delete_batch
from tequipy_reporting.domain.reports import (
    UNFINISHED,
    Period,
    Report,
    ReportFailure,
    ReportFormat,
    ReportKind,
    ReportStatus,
)
from tequipy_reporting.domain.repositories import Reports
from tequipy_reporting.infrastructure.models import ReportRow as Row

_UNFINISHED = Row.status.in_([status.value for status in UNFINISHED])


class SqlReports(Reports):
    """Rows of `reporting.reports`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(self, user_id: UUID) -> None:
        """Take an advisory lock, because the account may have no row to lock yet."""
        key = func.hashtextextended(f"reports {user_id}", 0)
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def add(self, report: Report) -> None:
        """Insert a report."""
        await self._session.execute(
            insert(Row).values(
                id=report.id,
                kind=report.kind.value,
                format=report.format.value,
                first_day=report.period.first_day,
                last_day=report.period.last_day,
                requested_by=report.requested_by,
                status=report.status.value,
                progress=report.progress,
                created_at=report.created_at,
                updated_at=report.updated_at,
                enqueued_at=report.enqueued_at,
            )
        )

    async def get(self, report_id: UUID) -> Report | None:
        """Select a report."""
        found = await self._all(select(Row).where(Row.id == report_id))
        return found[0] if found else None

    async def page(self, request: PageRequest) -> Page[Report]:
        """Select reports in the order of their ids, which grow with time."""
        query = select(Row).order_by(Row.id.desc()).limit(request.rows)
        if request.after is not None:
            query = query.where(Row.id < request.after)
        return Page.of(await self._all(query), request, attrgetter("id"))

    async def of(self, user_id: UUID, *, unfinished: bool = False) -> Sequence[Report]:
        """Select the reports of an account."""
        query = select(Row).where(Row.requested_by == user_id).order_by(Row.id)
        return await self._all(query.where(_UNFINISHED) if unfinished else query)

    async def enqueue(self, report_id: UUID, *, at: datetime) -> None:
        """Update a waiting report."""
        await self._change(report_id, Row.status == ReportStatus.QUEUED.value, enqueued_at=at, updated_at=at)

    async def begin(self, report_id: UUID, attempt: UUID, *, message_id: UUID, at: datetime) -> Report | None:
        """Update the row unless another message's attempt runs it, and return it."""
        free = or_(
            Row.status == ReportStatus.QUEUED.value,
            and_(Row.status == ReportStatus.RUNNING.value, Row.message_id == message_id),
        )
        begun = await self._change(
            report_id,
            free,
            status=ReportStatus.RUNNING.value,
            attempt=attempt,
            message_id=message_id,
            progress=0.0,
            started_at=func.coalesce(Row.started_at, at),
            updated_at=at,
        )
        return await self.get(report_id) if begun else None

    async def advance(self, report_id: UUID, attempt: UUID, progress: float, *, at: datetime) -> bool:
        """Update the progress."""
        return await self._change(report_id, _runs(attempt), progress=progress, updated_at=at)

    async def requeue(self, report_id: UUID, attempt: UUID, *, at: datetime) -> bool:
        """Update the status, and the progress to 0."""
        return await self._change(
            report_id, _runs(attempt), status=ReportStatus.QUEUED.value, progress=0.0, updated_at=at
        )

    async def complete(
        self, report_id: UUID, attempt: UUID, *, at: datetime, storage_key: str, size_bytes: int, sha256: str
    ) -> bool:
        """Update the row with the file, and the progress to 1."""
        return await self._change(
            report_id,
            _runs(attempt),
            status=ReportStatus.DONE.value,
            progress=1.0,
            finished_at=at,
            updated_at=at,
            storage_key=storage_key,
            size_bytes=size_bytes,
            sha256=sha256,
        )

    async def fail(self, report_id: UUID, attempt: UUID, error_code: ReportFailure, *, at: datetime) -> bool:
        """Update the row with the error code."""
        return await self._change(
            report_id,
            _runs(attempt),
            status=ReportStatus.FAILED.value,
            error_code=error_code.value,
            finished_at=at,
            updated_at=at,
        )

    async def cancel(self, report_id: UUID, *, at: datetime) -> bool:
        """Update an unfinished row."""
        return await self._change(
            report_id, _UNFINISHED, status=ReportStatus.CANCELLED.value, finished_at=at, updated_at=at
        )

    async def expire(self, report_id: UUID, *, at: datetime) -> bool:
        """Update a row with a file."""
        done = Row.status == ReportStatus.DONE.value
        return await self._change(report_id, done, status=ReportStatus.EXPIRED.value, storage_key=None, updated_at=at)

    async def delete(self, report_id: UUID) -> None:
        """Delete a row."""
        await self._session.execute(delete(Row).where(Row.id == report_id))

    async def forget(self, user_id: UUID) -> None:
        """Update the rows of an account."""
        forgotten = update(Row).where(Row.requested_by == user_id).values(requested_by=None)
        await self._session.execute(forgotten.execution_options(synchronize_session=False))

    async def done_before(self, time: datetime, *, limit: int) -> Sequence[Report]:
        """Select rows with a file, skipping those that another process expires."""
        query = select(Row).where(Row.status == ReportStatus.DONE.value, Row.finished_at < time)
        return await self._all(query.order_by(Row.finished_at).limit(limit).with_for_update(skip_locked=True))

    async def stuck(self, *, before: datetime, limit: int) -> Sequence[Report]:
        """Select unfinished rows that have not changed, the oldest change first."""
        query = select(Row).where(_UNFINISHED, Row.enqueued_at.is_not(None), Row.updated_at < before)
        return await self._all(query.order_by(Row.updated_at).limit(limit))

    async def recorded(self, keys: Collection[str]) -> Collection[str]:
        """Select the keys."""
        found = await self._session.scalars(select(Row.storage_key).where(Row.storage_key.in_(keys)))
        return {key for key in found if key is not None}

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete rows without a file, skipping those that are locked."""
        old = and_(Row.finished_at < before, Row.status != ReportStatus.DONE.value)
        return await delete_batch(self._session, Row, old, limit=limit)

    async def _all(self, query: Select[Row]) -> list[Report]:
        """Return current rows, even if the session has read older versions of them."""
        rows = await self._session.scalars(query.execution_options(populate_existing=True))
        return [_report_of(row) for row in rows]

    async def _change(self, report_id: UUID, condition: ColumnElement[bool], **values: Any) -> bool:  # noqa: ANN401 -- columns
        """Update a row if it fulfils the condition; return whether it did."""
        statement = update(Row).where(Row.id == report_id, condition).values(**values).returning(Row.id)
        changed = await self._session.execute(statement.execution_options(synchronize_session=False))
        return changed.first() is not None


def _runs(attempt: UUID) -> ColumnElement[bool]:
    return and_(Row.status == ReportStatus.RUNNING.value, Row.attempt == attempt)


def _failure_of(text: str) -> ReportFailure:
    """Return the failure with this code; one of a newer release, which runs beside this one, is an internal error."""
    try:
        return ReportFailure(text)
    except ValueError:
        return ReportFailure.INTERNAL_ERROR


def _report_of(row: Row) -> Report:
    return Report(
        id=row.id,
        kind=ReportKind(row.kind),
        format=ReportFormat(row.format),
        period=Period(row.first_day, row.last_day),
        requested_by=row.requested_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        status=ReportStatus(row.status),
        progress=row.progress,
        error_code=_failure_of(row.error_code) if row.error_code else None,
        enqueued_at=row.enqueued_at,
        message_id=row.message_id,
        attempt=row.attempt,
        started_at=row.started_at,
        finished_at=row.finished_at,
        storage_key=row.storage_key,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )

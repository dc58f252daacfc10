"""Requests for reports, and what callers see and do with them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from tequipy_auth import Principal
from tequipy_platform import (
    JSON,
    Clock,
    IdempotentRequest,
    IdSource,
    NotFound,
    Page,
    PageRequest,
    StoredObject,
    retry_conflicts,
)
from tequipy_reporting.domain.exceptions import ReportNotReady, TooManyReports
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import ReportMetrics
from tequipy_reporting.domain.reports import Period, Report, ReportFormat, ReportKind, ReportStatus
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.turns import lock_turns, remove_files, start_next

_RETRY_AFTER: Final = 60
"""Seconds after which an account with too many reports may have fewer."""


class ReportService:
    """Takes requests for reports; a worker generates them."""

    def __init__(
        self,
        unit_of_work: Callable[[], ReportingUnitOfWork],
        *,
        policy: ReportPolicy,
        clock: Clock,
        new_id: IdSource,
        metrics: ReportMetrics,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._metrics = metrics

    @retry_conflicts
    async def request(
        self,
        principal: Principal,
        kind: ReportKind,
        report_format: ReportFormat,
        period: Period,
        *,
        request: IdempotentRequest | None = None,
    ) -> Report:
        """Store a report that waits for its turn; with `request` a repeat returns the first one as it was then.

        Raises `Invalid` for the period, `TooManyReports`, `IdempotencyKeyInUse` and `IdempotencyKeyReused`.
        """
        now, user_id = self._clock.now(), principal.user_id
        period.check(now.date())
        report = Report(self._new_id(), kind, report_format, period, user_id, created_at=now, updated_at=now)
        async with self._unit_of_work() as work:
            if request is not None and (first := await work.idempotency.begin(str(user_id), request)) is not None:
                return _as_first(report, first)
            await lock_turns(work, user_id)
            if len(await work.reports.of(user_id, unfinished=True)) >= self._policy.max_waiting:
                raise TooManyReports(retry_after=_RETRY_AFTER)
            await work.reports.add(report)
            await start_next(work, user_id, now)
            if request is not None:
                kept: dict[str, JSON] = {"id": str(report.id), "created_at": now.isoformat()}
                await work.idempotency.keep(str(user_id), request, kept)
        return report

    async def page(self, request: PageRequest) -> Page[Report]:
        """Return a page of all reports, the newest first."""
        async with self._unit_of_work() as work:
            return await work.reports.page(request)

    async def get(self, report_id: UUID) -> Report:
        """Return a report; raises `NotFound`."""
        async with self._unit_of_work() as work:
            report = await work.reports.get(report_id)
        if report is None:
            raise NotFound
        return report

    async def file(self, report_id: UUID) -> tuple[Report, StoredObject]:
        """Return a report with its file; raises `NotFound`, and `ReportNotReady` unless it is done."""
        report = await self.get(report_id)
        if report.file is None:
            raise ReportNotReady
        return report, report.file

    @retry_conflicts
    async def delete(self, report_id: UUID) -> None:
        """Cancel a report that waits or runs, or else delete it; its file is removed. Raises `NotFound`."""
        now = self._clock.now()
        async with self._unit_of_work() as work:
            report = await work.reports.get(report_id)
            if report is None:
                raise NotFound
            await lock_turns(work, report.requested_by)
            cancelled = await work.reports.cancel(report_id, at=now)
            if not cancelled:
                await work.reports.delete(report_id)
            remove_files(work, report)
            if cancelled:
                await start_next(work, report.requested_by, now)
        if cancelled:
            self._metrics.finished(replace(report, status=ReportStatus.CANCELLED))


def _as_first(report: Report, first: Mapping[str, JSON]) -> Report:
    """Return the report of an equal, earlier request as it was when it was stored."""
    created_at = datetime.fromisoformat(str(first["created_at"]))
    return replace(report, id=UUID(str(first["id"])), created_at=created_at, updated_at=created_at)

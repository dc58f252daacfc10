"""Removal of files and rows whose time is over, and of what killed processes have left behind."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from tequipy_platform import Clock, Delivery, ObjectStorage, retry_conflicts
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import ReportMetrics
from tequipy_reporting.domain.reports import KEY_PREFIX, Report, ReportFailure, ReportStatus, folder_of
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.turns import enqueue, lock_turns, remove_files, start_next

BATCH_SIZE: Final = 100
"""The number of rows that one transaction changes."""

ORPHAN_AGE: Final = timedelta(hours=1)
"""The time after which an attempt has recorded the object that it has stored, or never will."""


class Housekeeping:
    """Ends reports that nobody else ends; safe to repeat and to run concurrently."""

    def __init__(
        self,
        unit_of_work: Callable[[], ReportingUnitOfWork],
        *,
        storage: ObjectStorage,
        policy: ReportPolicy,
        clock: Clock,
        metrics: ReportMetrics,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._storage = storage
        self._policy = policy
        self._clock = clock
        self._metrics = metrics

    async def expire(self, _delivery: Delivery) -> None:
        """Run the task `reporting.expire_reports`: expire old reports, delete older rows, and files without a row.

        Files that killed attempts have not finished go too.
        """
        now = self._clock.now()
        expired = BATCH_SIZE
        while expired == BATCH_SIZE:
            expired = await self._expire_batch()
        purged = BATCH_SIZE
        while purged == BATCH_SIZE:
            async with self._unit_of_work() as work:
                purged = await work.reports.purge(before=now - self._policy.row_retention, limit=BATCH_SIZE)
        async for keys in self._old_keys():
            async with self._unit_of_work() as work:
                recorded = await work.reports.recorded(keys)
            for key in keys:
                if key not in recorded:
                    await self._storage.delete(key)
        await self._storage.remove_unfinished(before=now - ORPHAN_AGE)

    @retry_conflicts
    async def _expire_batch(self) -> int:
        now = self._clock.now()
        async with self._unit_of_work() as work:
            reports = await work.reports.done_before(now - self._policy.retention, limit=BATCH_SIZE)
            for report in reports:
                if await work.reports.expire(report.id, at=now):
                    remove_files(work, report)
        return len(reports)

    async def _old_keys(self) -> AsyncIterator[list[str]]:
        """Yield the keys of all files that are old enough to be orphans, in batches."""
        keys: list[str] = []
        async for found in self._storage.list(f"{KEY_PREFIX}/"):
            if found.modified_at < self._clock.now() - ORPHAN_AGE:
                keys.append(found.key)
            if len(keys) == BATCH_SIZE:
                yield keys
                keys = []
        if keys:
            yield keys

    async def resume(self, _delivery: Delivery) -> None:
        """Run the task `reporting.resume_reports`: end running reports without progress, and start the next ones.

        Their messages have become dead letters, usually because they killed their worker several times. A report that
        waits so long gets another message; its first one may still come, and then does nothing.
        """
        before = self._clock.now() - self._policy.stuck_after
        async with self._unit_of_work() as work:
            stuck = await work.reports.stuck(before=before, limit=BATCH_SIZE)
        for report in stuck:
            await self._resume(report)

    @retry_conflicts
    async def _resume(self, report: Report) -> None:
        now = self._clock.now()
        failed = False
        async with self._unit_of_work() as work:
            await lock_turns(work, report.requested_by)
            current = await work.reports.get(report.id)
            if current != report:
                return  # it has changed since it was found
            if report.attempt is None or report.status is ReportStatus.QUEUED:
                await enqueue(work, report, now)
            elif failed := await work.reports.fail(report.id, report.attempt, ReportFailure.INTERRUPTED, at=now):
                remove_files(work, report)
                await start_next(work, report.requested_by, now)
        if failed:
            self._metrics.finished(replace(report, status=ReportStatus.FAILED, error_code=ReportFailure.INTERRUPTED))

    async def remove_files(self, _delivery: Delivery, report_id: str) -> None:
        """Run the task `reporting.remove_files`: remove all files of a report that has ended, besides the recorded one.

        An attempt that is still writing removes its own file.
        """
        async with self._unit_of_work() as work:
            report = await work.reports.get(UUID(report_id))
        kept = report.storage_key if report else None
        async for found in self._storage.list(folder_of(UUID(report_id))):
            if found.key != kept:
                await self._storage.delete(found.key)

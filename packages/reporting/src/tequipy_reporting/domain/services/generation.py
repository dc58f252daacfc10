"""Generation of reports in a worker: one attempt streams a file into the object storage."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from tequipy_platform import (
    Clock,
    Delivery,
    IdSource,
    ObjectStorage,
    ObjectTooLarge,
    StoredObject,
    Unavailable,
    retry_conflicts,
)
from tequipy_reporting.domain.policy import ReportPolicy
from tequipy_reporting.domain.ports import ReportMetrics, Writers
from tequipy_reporting.domain.reports import Report, ReportFailure, ReportStatus, key_of
from tequipy_reporting.domain.repositories import ReportingUnitOfWork
from tequipy_reporting.domain.services.turns import lock_turns, start_next

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL: Final = timedelta(seconds=1)
"""How often an attempt records its progress, and notices that its report was cancelled."""


class _Superseded(Exception):
    """The report was cancelled or deleted, or another attempt runs it: this one ends and stores nothing."""


class _LimitExceeded(Exception):
    """The report is too large, or takes too long: another attempt would not help."""

    def __init__(self, failure: ReportFailure) -> None:
        super().__init__(failure)
        self.failure = failure


class _DataUnavailable(Unavailable):
    """The report's data could not be read, or its progress not be written."""


class GenerationService:
    """Runs the task `reporting.generate_report`.

    Every attempt has its own id and key in the object storage. All that it writes into the row it writes on condition
    that it still is the report's attempt, so a cancelled or superseded one leaves nothing.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], ReportingUnitOfWork],
        *,
        storage: ObjectStorage,
        writers: Writers,
        policy: ReportPolicy,
        clock: Clock,
        new_id: IdSource,
        metrics: ReportMetrics,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._storage = storage
        self._writers = writers
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._metrics = metrics

    async def generate(self, delivery: Delivery, report_id: str) -> None:
        """Generate a report, unless it has ended; an error is raised for the task to be repeated."""
        attempt = self._new_id()
        begun_at = self._clock.now()
        async with self._unit_of_work() as work:
            report = await work.reports.begin(UUID(report_id), attempt, message_id=delivery.id, at=begun_at)
        if report is None:
            return
        timeout = asyncio.timeout(self._policy.max_duration.total_seconds())
        try:
            async with timeout:  # a database or storage that stands still yields no piece at which time could be read
                await self._remove_earlier_files(report, attempt)
                stored = await self._storage.put(key_of(report, attempt), self._content(report, attempt))
        except _Superseded:
            logger.info("report_superseded", extra={"report_id": report_id})
        except _LimitExceeded as error:
            await self._fail(report, attempt, error.failure)
        except ObjectTooLarge:
            await self._fail(report, attempt, ReportFailure.TOO_LARGE)
        except Exception as error:
            if timeout.expired():
                await self._fail(report, attempt, ReportFailure.TIMED_OUT)
                return
            if self._clock.now() - (report.started_at or begun_at) < self._policy.give_up_after:
                await self._requeue(report, attempt)
                raise
            logger.exception("report_failed", extra={"report_id": report_id})
            await self._fail(report, attempt, _failure_of(error))
        else:
            await self._complete(report, attempt, stored)

    async def _content(self, report: Report, attempt: UUID) -> AsyncIterator[bytes]:
        """Yield the file; raises `_Superseded`, `_LimitExceeded`, `_DataUnavailable`, and what a writer raises."""
        begun_at = recorded_at = self._clock.now()
        size = 0
        try:
            async with aclosing(self._writers[report.kind, report.format].write(report)) as chunks:
                async for chunk in chunks:
                    now, size = self._clock.now(), size + len(chunk.data)
                    if size > self._policy.max_bytes:
                        raise _LimitExceeded(ReportFailure.TOO_LARGE)
                    if now - begun_at > self._policy.max_duration:
                        raise _LimitExceeded(ReportFailure.TIMED_OUT)
                    if now - recorded_at >= PROGRESS_INTERVAL:
                        await self._advance(report, attempt, chunk.progress)
                        recorded_at = now
                    yield chunk.data
        except Unavailable as error:
            raise _DataUnavailable(retry_after=error.retry_after) from error

    async def _advance(self, report: Report, attempt: UUID, progress: float) -> None:
        async with self._unit_of_work() as work:
            runs = await work.reports.advance(report.id, attempt, progress, at=self._clock.now())
        if not runs:
            raise _Superseded

    async def _remove_earlier_files(self, report: Report, attempt: UUID) -> None:
        """Remove what an attempt has left that was killed between the end of its file and the commit.

        The ids of attempts grow with time: an attempt that was suspended keeps the file of a later one.
        """
        if report.started_at != report.updated_at:  # it is not the first attempt
            async for found in self._storage.list(report.folder):
                if found.key < key_of(report, attempt):
                    await self._storage.delete(found.key)

    @retry_conflicts
    async def _requeue(self, report: Report, attempt: UUID) -> None:
        async with self._unit_of_work() as work:
            await work.reports.requeue(report.id, attempt, at=self._clock.now())

    @retry_conflicts
    async def _complete(self, report: Report, attempt: UUID, stored: StoredObject) -> None:
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await lock_turns(work, report.requested_by)
            completed = await work.reports.complete(
                report.id,
                attempt,
                at=now,
                storage_key=stored.key,
                size_bytes=stored.size,
                sha256=stored.sha256 or "",
            )
            if completed:
                await start_next(work, report.requested_by, now)
        if completed:
            done = replace(report, status=ReportStatus.DONE, size_bytes=stored.size)
            self._metrics.finished(done, duration=now - report.updated_at)
        else:
            await self._storage.delete(stored.key)

    @retry_conflicts
    async def _fail(self, report: Report, attempt: UUID, failure: ReportFailure) -> None:
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await lock_turns(work, report.requested_by)
            failed = await work.reports.fail(report.id, attempt, failure, at=now)
            if failed:
                await start_next(work, report.requested_by, now)
        if failed:
            ended = replace(report, status=ReportStatus.FAILED, error_code=failure)
            self._metrics.finished(ended, duration=now - report.updated_at)


def _failure_of(error: Exception) -> ReportFailure:
    if isinstance(error, _DataUnavailable):
        return ReportFailure.INTERRUPTED
    return ReportFailure.STORAGE_UNAVAILABLE if isinstance(error, Unavailable) else ReportFailure.INTERNAL_ERROR

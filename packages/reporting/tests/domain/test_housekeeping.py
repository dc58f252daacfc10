"""Housekeeping: reports and files whose time is over, and what killed processes have left."""

from datetime import timedelta
from uuid import uuid4

import pytest

from tequipy_platform import Delivery
from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_reporting import ReportFailure, Reporting, ReportNotReady, ReportPolicy, ReportStatus
from tequipy_reporting.domain.services.housekeeping import BATCH_SIZE
from tequipy_reporting.testing import MemoryReportingUnitOfWork

from .requests import ask, caller, generate, removals, turns

DAY = timedelta(days=1)
TICK = Delivery(uuid4(), "reporting.expire_reports")
STUCK = ReportPolicy().stuck_after


async def remove_files(reporting: Reporting, work: MemoryReportingUnitOfWork) -> None:
    for report_id in removals(work):
        await reporting.housekeeping.remove_files(TICK, str(report_id))


async def test_a_report_expires_after_30_days(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """Its file is removed, it is listed as expired for 60 more days, and then it is gone."""
    report = await ask(reporting, caller())
    await generate(reporting, report.id)
    clock.advance(30 * DAY)
    await reporting.housekeeping.expire(TICK)
    assert work.reports.rows[report.id].status is ReportStatus.DONE
    clock.advance(timedelta(seconds=1))
    await reporting.housekeeping.expire(TICK)
    row = work.reports.rows[report.id]
    assert (row.status, row.storage_key) == (ReportStatus.EXPIRED, None)
    with pytest.raises(ReportNotReady):
        await reporting.reports.file(report.id)
    await remove_files(reporting, work)
    assert storage.objects == {}
    clock.advance(60 * DAY)
    await reporting.housekeeping.expire(TICK)
    assert work.reports.rows == {}


async def test_all_due_reports_expire(
    reporting: Reporting, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """More reports than one transaction changes expire in one run, and are deleted in one run."""
    for _ in range(BATCH_SIZE + 1):
        await generate(reporting, (await ask(reporting, caller())).id)
    clock.advance(31 * DAY)
    await reporting.housekeeping.expire(TICK)
    assert {row.status for row in work.reports.rows.values()} == {ReportStatus.EXPIRED}
    clock.advance(60 * DAY)
    await reporting.housekeeping.expire(TICK)
    assert work.reports.rows == {}


async def test_objects_without_a_report_are_deleted_after_an_hour(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """Orphans of killed attempts go after an hour; recorded files, and those of other packages, stay."""
    report = await ask(reporting, caller())
    await generate(reporting, report.id)
    for number in range(BATCH_SIZE):
        await storage.put(f"reports/{uuid4()}/{number}.csv", b"orphan")
    await storage.put(f"reports/{report.id}/{uuid4()}.csv", b"orphan")
    await storage.put("avatars/1.png", b"of another package")
    clock.advance(timedelta(hours=1))
    await reporting.housekeeping.expire(TICK)
    assert len(storage.objects) == BATCH_SIZE + 3
    clock.advance(timedelta(seconds=1))
    await reporting.housekeeping.expire(TICK)
    assert set(storage.objects) == {work.reports.rows[report.id].storage_key, "avatars/1.png"}


async def test_removing_files_keeps_the_recorded_one(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage
) -> None:
    """The task removes the files of other attempts, and all of them once the report was deleted."""
    report = await ask(reporting, caller())
    await generate(reporting, report.id)
    await storage.put(f"reports/{report.id}/{uuid4()}.csv", b"orphan")
    await reporting.housekeeping.remove_files(TICK, str(report.id))
    assert list(storage.objects) == [work.reports.rows[report.id].storage_key]
    await reporting.reports.delete(report.id)
    await remove_files(reporting, work)
    assert storage.objects == {}


async def test_a_report_without_progress_is_interrupted(
    reporting: Reporting, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """A running report that has not changed for 20 minutes fails, and the account's next one has its turn."""
    one = caller()
    report, following = await ask(reporting, one), await ask(reporting, one)
    await work.reports.begin(report.id, uuid4(), message_id=uuid4(), at=clock.now())
    clock.advance(STUCK)
    await reporting.housekeeping.resume(TICK)
    assert work.reports.rows[report.id].status is ReportStatus.RUNNING
    clock.advance(timedelta(seconds=1))
    await reporting.housekeeping.resume(TICK)
    row = work.reports.rows[report.id]
    assert (row.status, row.error_code) == (ReportStatus.FAILED, ReportFailure.INTERRUPTED)
    assert turns(work) == [report.id, following.id]
    assert removals(work) == [report.id]


async def test_a_report_whose_message_was_lost_gets_another(
    reporting: Reporting, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """A report that has waited for 20 minutes at its turn gets another message, once in 20 minutes; others do not."""
    one = caller()
    report, _ = await ask(reporting, one), await ask(reporting, one)
    clock.advance(STUCK + timedelta(seconds=1))
    for _ in range(2):
        await reporting.housekeeping.resume(TICK)
    assert turns(work) == [report.id, report.id]
    assert work.reports.rows[report.id].status is ReportStatus.QUEUED

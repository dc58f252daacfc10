"""Attempts at reports: what each leaves behind, however it ends."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from tequipy_platform import Delivery, Unavailable
from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_reporting import (
    ReportFailure,
    Reporting,
    ReportPolicy,
    ReportStatus,
)
from tequipy_reporting.domain.task_names import GENERATE_REPORT
from tequipy_reporting.testing import (
    FakeReportWriter,
    MemoryReportingUnitOfWork,
    RecordingReportMetrics,
    build_fake_reporting,
)

from .disturbed import AwayStorage, ScriptedWriter, StandingStorage, SuspendedStorage
from .requests import PIECES, ask, caller, generate, turns

SECOND = timedelta(seconds=1)


async def test_a_report_is_done_with_its_file(
    reporting: Reporting,
    work: MemoryReportingUnitOfWork,
    storage: MemoryStorage,
    metrics: RecordingReportMetrics,
) -> None:
    """One attempt stores the file, whose key, size and digest are recorded, and the message may come again."""
    report = await ask(reporting, caller())
    for _ in range(2):
        await generate(reporting, report.id)
    row = work.reports.rows[report.id]
    assert (row.status, row.progress, row.error_code, row.finished_at) == (ReportStatus.DONE, 1, None, row.updated_at)
    assert row.storage_key == f"reports/{report.id}/{row.attempt}.csv"
    stored = await storage.head(row.storage_key)
    assert (row.size_bytes, row.sha256) == (stored.size, stored.sha256)
    assert storage.objects[row.storage_key][0] == b"".join(PIECES)
    assert list(storage.objects) == [row.storage_key]
    assert [(each.status, each.size_bytes) for each in metrics.reports] == [(ReportStatus.DONE, 23)]


async def test_progress_is_recorded_once_a_second(
    reporting: Reporting, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """With four pieces in a second every fourth one changes the row, whose time is the heartbeat."""
    report = await ask(reporting, caller())
    writer = ScriptedWriter(clock, SECOND / 4)
    seen: list[float] = []

    async def look(_: int) -> None:
        seen.append(work.reports.rows[report.id].progress)

    writer.before = look
    await generate(reporting, report.id, writer)
    assert seen == [0, 0, 0, 0, 0.4, 0.4, 0.4, 0.4, 0.8, 0.8]
    assert work.reports.rows[report.id].progress == 1


async def test_a_report_cancelled_half_way_leaves_no_file(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """The writer is closed at the next second, nothing is stored, and the account's next report has its turn."""
    one = caller()
    report, following = await ask(reporting, one), await ask(reporting, one)
    writer = ScriptedWriter(clock)

    async def cancel(number: int) -> None:
        if number == 5:
            await reporting.reports.delete(report.id)

    writer.before = cancel
    await generate(reporting, report.id, writer)
    assert (writer.pieces, writer.closed) == (5, True)
    assert storage.objects == {}
    assert work.reports.rows[report.id].status is ReportStatus.CANCELLED
    assert turns(work) == [report.id, following.id]


async def test_a_cancel_after_the_last_piece_leaves_no_file(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """An attempt whose end is refused deletes the file that it has stored."""
    report = await ask(reporting, caller())
    writer = ScriptedWriter(clock, timedelta(0))

    async def cancel(number: int) -> None:
        if number == 10:
            await reporting.reports.delete(report.id)

    writer.before = cancel
    await generate(reporting, report.id, writer)
    assert writer.pieces == 10
    assert storage.objects == {}
    assert work.reports.rows[report.id].status is ReportStatus.CANCELLED


async def test_a_later_attempt_supersedes_an_earlier_one(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """A message that is delivered again while its attempt runs: the new one finishes, the old one stores nothing."""
    report = await ask(reporting, caller())
    delivery = Delivery(uuid4(), GENERATE_REPORT)
    writer = ScriptedWriter(clock)

    async def repeat(number: int) -> None:
        if number == 5:
            await generate(reporting, report.id, FakeReportWriter(b"new"), delivery=delivery)

    writer.before = repeat
    await generate(reporting, report.id, writer, delivery=delivery)
    assert [content for content, _ in storage.objects.values()] == [b"new"]
    assert work.reports.rows[report.id].size_bytes == 3


async def test_another_message_leaves_a_running_report_alone(
    reporting: Reporting, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """A second message of a report, which housekeeping may have added, does nothing while the first one's runs."""
    report = await ask(reporting, caller())
    writer = ScriptedWriter(clock)

    async def intrude(number: int) -> None:
        if number == 5:
            await generate(reporting, report.id, FakeReportWriter(b"new"))

    writer.before = intrude
    await generate(reporting, report.id, writer)
    assert [content for content, _ in storage.objects.values()] == [b"x" * 100]


async def test_the_file_of_a_killed_attempt_is_removed(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage, clock: FrozenClock
) -> None:
    """An attempt killed between its file and the commit leaves an object, which the next attempt removes."""
    report = await ask(reporting, caller())
    delivery = Delivery(uuid4(), GENERATE_REPORT)
    killed = work.new_id()
    await work.reports.begin(report.id, killed, message_id=delivery.id, at=clock.now())
    await storage.put(f"reports/{report.id}/{killed}.csv", b"orphan")
    clock.advance(SECOND)
    await generate(reporting, report.id, delivery=delivery)
    assert list(storage.objects) == [work.reports.rows[report.id].storage_key]


async def test_a_suspended_attempt_keeps_the_file_of_a_later_one(
    work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """An attempt that removes earlier files only after a later one has finished leaves the later one's file."""
    storage = SuspendedStorage(clock)
    reporting = build_fake_reporting(work, clock=clock, storage=storage)
    report = await ask(reporting, caller())
    delivery = Delivery(uuid4(), GENERATE_REPORT)
    await work.reports.begin(report.id, work.new_id(), message_id=delivery.id, at=clock.now())
    clock.advance(SECOND)

    async def overtake() -> None:
        await generate(reporting, report.id, FakeReportWriter(b"later"), delivery=delivery)

    storage.before_list = overtake
    await generate(reporting, report.id, delivery=delivery)
    assert work.reports.rows[report.id].status is ReportStatus.DONE
    assert {key: content for key, (content, _) in storage.objects.items()} == {
        work.reports.rows[report.id].storage_key: b"later"
    }


@pytest.mark.parametrize(
    ("policy", "failure"),
    [
        (ReportPolicy(max_bytes=1024), ReportFailure.TOO_LARGE),
        (ReportPolicy(max_duration=timedelta(seconds=5)), ReportFailure.TIMED_OUT),
    ],
)
async def test_a_report_over_a_limit_fails_at_once(
    policy: ReportPolicy,
    failure: ReportFailure,
    work: MemoryReportingUnitOfWork,
    storage: MemoryStorage,
    clock: FrozenClock,
    metrics: RecordingReportMetrics,
) -> None:
    """It fails with the limit's code without another attempt, nothing is stored, and the next report has its turn."""
    reporting = build_fake_reporting(work, clock=clock, storage=storage, policy=policy, metrics=metrics)
    one = caller()
    report, following = await ask(reporting, one), await ask(reporting, one)
    long = FakeReportWriter(*[b"x" * 1000] * 10)
    await generate(reporting, report.id, long if failure is ReportFailure.TOO_LARGE else ScriptedWriter(clock))
    row = work.reports.rows[report.id]
    assert (row.status, row.error_code, row.storage_key) == (ReportStatus.FAILED, failure, None)
    assert storage.objects == {}
    assert turns(work) == [report.id, following.id]
    assert [(each.status, each.error_code) for each in metrics.reports] == [(ReportStatus.FAILED, failure)]


@pytest.mark.parametrize("stands_still", ["database", "storage"])
async def test_an_attempt_that_stands_still_times_out(
    stands_still: str, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """Without another piece of the file the attempt ends after `max_duration` too, and the next report has its turn."""
    forever = asyncio.Event()
    writer = ScriptedWriter(clock, timedelta(0))
    storage = StandingStorage(clock, forever) if stands_still == "storage" else MemoryStorage(clock)
    policy = ReportPolicy(max_duration=SECOND)
    reporting = build_fake_reporting(work, clock=clock, storage=storage, policy=policy)
    one = caller()
    report, following = await ask(reporting, one), await ask(reporting, one)

    async def stand_still(number: int) -> None:
        if stands_still == "database" and number == 5:
            await forever.wait()

    writer.before = stand_still
    async with asyncio.timeout(30):
        await generate(reporting, report.id, writer)
    row = work.reports.rows[report.id]
    assert (row.status, row.error_code) == (ReportStatus.FAILED, ReportFailure.TIMED_OUT)
    assert writer.closed is (stands_still == "database")
    assert storage.objects == {}
    assert turns(work) == [report.id, following.id]


async def test_a_report_waits_for_the_storage_and_then_fails(
    work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """While the storage is away attempts fail and the report waits; 15 minutes after the first start it fails."""
    storage = AwayStorage(clock)
    reporting = build_fake_reporting(work, clock=clock, storage=storage)
    report, second = await ask(reporting, caller()), await ask(reporting, caller())
    storage.away = True
    delivery = Delivery(uuid4(), GENERATE_REPORT)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await generate(reporting, report.id, delivery=delivery)
        row = work.reports.rows[report.id]
        assert (row.status, row.progress, row.error_code) == (ReportStatus.QUEUED, 0, None)
        clock.advance(timedelta(minutes=5))
    await generate(reporting, report.id, delivery=delivery)
    row = work.reports.rows[report.id]
    assert (row.status, row.error_code) == (ReportStatus.FAILED, ReportFailure.STORAGE_UNAVAILABLE)
    storage.away = False
    await generate(reporting, second.id)
    assert work.reports.rows[second.id].status is ReportStatus.DONE


@pytest.mark.parametrize(
    ("fault", "failure"),
    [(Unavailable(), ReportFailure.INTERRUPTED), (RuntimeError("bug"), ReportFailure.INTERNAL_ERROR)],
    ids=["no data", "bug"],
)
async def test_a_writer_that_fails_is_tried_again_for_a_while(
    fault: Exception,
    failure: ReportFailure,
    reporting: Reporting,
    work: MemoryReportingUnitOfWork,
    storage: MemoryStorage,
    clock: FrozenClock,
) -> None:
    """Data that cannot be read, and a bug, have codes of their own, and store nothing."""
    report = await ask(reporting, caller())
    writer = ScriptedWriter(clock)

    async def fail(number: int) -> None:
        if number == 5:
            raise fault

    writer.before = fail
    delivery = Delivery(uuid4(), GENERATE_REPORT)
    with pytest.raises(type(fault)):
        await generate(reporting, report.id, writer, delivery=delivery)
    assert work.reports.rows[report.id].status is ReportStatus.QUEUED
    clock.advance(timedelta(minutes=15))
    await generate(reporting, report.id, writer, delivery=delivery)
    row = work.reports.rows[report.id]
    assert (row.status, row.error_code) == (ReportStatus.FAILED, failure)
    assert storage.objects == {}

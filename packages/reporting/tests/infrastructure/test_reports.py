"""The contract of the port `Reports`: every test runs with memory and with PostgreSQL."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tequipy_platform import PageRequest
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock
from tequipy_reporting import (
    Period,
    Report,
    ReportFailure,
    ReportFormat,
    ReportingUnitOfWork,
    ReportKind,
    ReportStatus,
)
from tequipy_reporting.infrastructure.repositories import SqlReportingUnitOfWork
from tequipy_reporting.testing import MemoryReportingUnitOfWork

Work = Callable[[], ReportingUnitOfWork]
SECOND = timedelta(seconds=1)
LATER = EPOCH + SECOND
USER, OTHER = UUID(int=1), UUID(int=2)
ATTEMPT, MESSAGE = UUID(int=3), UUID(int=4)
new_id = CountingIds()


@pytest.fixture(params=["memory", "postgresql"])
def work(request: pytest.FixtureRequest) -> Work:
    """Return a function that creates units of work over one store."""
    if request.param == "memory":
        held = MemoryReportingUnitOfWork(FrozenClock())
        return lambda: held
    database: Database = request.getfixturevalue("database")
    return lambda: SqlReportingUnitOfWork(database, FrozenClock(), new_id)


def make_report(user_id: UUID | None = USER) -> Report:
    day = EPOCH.date()
    return Report(
        id=new_id(),
        kind=ReportKind.USER_ACTIVITY,
        format=ReportFormat.CSV,
        period=Period(day - timedelta(days=1), day),
        requested_by=user_id,
        created_at=EPOCH,
        updated_at=EPOCH,
    )


async def stored(work: Work, report: Report | None = None) -> Report:
    """Store a report and return it."""
    report = report or make_report()
    async with work() as unit:
        await unit.reports.add(report)
    return report


async def running(work: Work, attempt: UUID = ATTEMPT) -> Report:
    """Store a report that an attempt runs."""
    report = await stored(work)
    async with work() as unit:
        await unit.reports.enqueue(report.id, at=EPOCH)
        begun = await unit.reports.begin(report.id, attempt, message_id=MESSAGE, at=EPOCH)
    assert begun is not None
    return begun


async def done(work: Work, *, after: timedelta = timedelta(0)) -> Report:
    """Store a report that is done."""
    attempt = new_id()
    report = await running(work, attempt)
    async with work() as unit:
        assert await unit.reports.complete(
            report.id, attempt, at=EPOCH + after, storage_key=f"reports/{report.id}/1.csv", size_bytes=7, sha256="ab"
        )
    return await get(work, report)


async def get(work: Work, report: Report) -> Report:
    async with work() as unit:
        found = await unit.reports.get(report.id)
    assert found is not None
    return found


async def test_a_stored_report_is_returned_as_it_was(work: Work) -> None:
    """All fields of a new report survive; an unknown id returns None."""
    report = await stored(work)
    assert await get(work, report) == report
    async with work() as unit:
        assert await unit.reports.get(new_id()) is None


async def test_a_report_is_removed_by_a_rollback(work: Work) -> None:
    """What a failed block has added is not stored."""
    report = make_report()

    async def fail() -> None:
        async with work() as unit:
            await unit.reports.add(report)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with work() as unit:
        assert await unit.reports.get(report.id) is None


async def test_an_attempt_runs_a_report(work: Work) -> None:
    """Beginning sets status, attempt and message; the start is that of the first attempt, the progress is 0 again."""
    report = await running(work)
    assert (report.status, report.attempt, report.message_id) == (ReportStatus.RUNNING, ATTEMPT, MESSAGE)
    assert (report.started_at, report.updated_at, report.enqueued_at) == (EPOCH, EPOCH, EPOCH)
    async with work() as unit:
        assert await unit.reports.advance(report.id, ATTEMPT, 0.25, at=LATER)
    assert (await get(work, report)).progress == 0.25
    second = new_id()
    async with work() as unit:
        assert await unit.reports.begin(report.id, second, message_id=new_id(), at=LATER) is None
        again = await unit.reports.begin(report.id, second, message_id=MESSAGE, at=LATER)
    assert again == replace(report, attempt=second, updated_at=LATER)


@pytest.mark.parametrize("change", ["advance", "requeue", "complete", "fail"])
async def test_only_the_attempt_that_runs_changes_a_report(work: Work, change: str) -> None:
    """An attempt that was superseded, or whose report was cancelled, changes nothing and is told so."""

    async def perform(report: Report, attempt: UUID) -> bool:
        async with work() as unit:
            if change == "advance":
                return await unit.reports.advance(report.id, attempt, 0.5, at=LATER)
            if change == "requeue":
                return await unit.reports.requeue(report.id, attempt, at=LATER)
            if change == "complete":
                return await unit.reports.complete(
                    report.id, attempt, at=LATER, storage_key="k", size_bytes=1, sha256="ab"
                )
            return await unit.reports.fail(report.id, attempt, ReportFailure.TOO_LARGE, at=LATER)

    report = await running(work)
    assert not await perform(report, new_id())
    assert await get(work, report) == report
    async with work() as unit:
        await unit.reports.cancel(report.id, at=LATER)
    cancelled = await get(work, report)
    assert not await perform(report, ATTEMPT)
    assert await get(work, report) == cancelled
    assert not await perform(make_report(), ATTEMPT)


async def test_a_report_waits_for_its_next_attempt(work: Work) -> None:
    """It is queued again without progress, and any message may begin the next attempt."""
    report = await running(work)
    async with work() as unit:
        await unit.reports.advance(report.id, ATTEMPT, 0.5, at=EPOCH)
        assert await unit.reports.requeue(report.id, ATTEMPT, at=LATER)
    assert await get(work, report) == replace(report, status=ReportStatus.QUEUED, updated_at=LATER)
    async with work() as unit:
        begun = await unit.reports.begin(report.id, new_id(), message_id=new_id(), at=LATER + SECOND)
    assert begun is not None
    assert begun.started_at == EPOCH


async def test_a_report_ends(work: Work) -> None:
    """Each end sets its status, the time and what belongs to it, and no other end follows."""
    ended = await done(work)
    assert (ended.status, ended.progress, ended.finished_at) == (ReportStatus.DONE, 1, EPOCH)
    assert (ended.size_bytes, ended.sha256) == (7, "ab")
    assert ended.file is not None
    failing = await running(work, new_id())
    assert failing.attempt is not None
    async with work() as unit:
        assert await unit.reports.fail(failing.id, failing.attempt, ReportFailure.TIMED_OUT, at=LATER)
    failed = await get(work, failing)
    assert (failed.status, failed.error_code, failed.finished_at) == (
        ReportStatus.FAILED,
        ReportFailure.TIMED_OUT,
        LATER,
    )
    waiting = await stored(work)
    async with work() as unit:
        assert await unit.reports.cancel(waiting.id, at=LATER)
    cancelled = await get(work, waiting)
    assert (cancelled.status, cancelled.finished_at) == (ReportStatus.CANCELLED, LATER)
    async with work() as unit:
        for report in (ended, failed, cancelled):
            assert not await unit.reports.cancel(report.id, at=LATER)
            assert await unit.reports.begin(report.id, new_id(), message_id=MESSAGE, at=LATER) is None


async def test_only_a_done_report_expires(work: Work) -> None:
    """An expired report has no file, and keeps its size and end."""
    report = await done(work)
    async with work() as unit:
        assert await unit.reports.expire(report.id, at=LATER)
        assert not await unit.reports.expire(report.id, at=LATER)
    expected = replace(report, status=ReportStatus.EXPIRED, storage_key=None, updated_at=LATER)
    assert await get(work, report) == expected
    waiting = await stored(work, make_report(OTHER))
    async with work() as unit:
        assert not await unit.reports.expire(waiting.id, at=LATER)


async def test_reports_of_an_account_are_in_order(work: Work) -> None:
    """The reports of an account, or its unfinished ones, are returned oldest first, without those of others."""
    finished = await done(work)
    first, second = await stored(work), await stored(work)
    await stored(work, make_report(OTHER))
    async with work() as unit:
        assert [each.id for each in await unit.reports.of(USER)] == [finished.id, first.id, second.id]
        assert [each.id for each in await unit.reports.of(USER, unfinished=True)] == [first.id, second.id]
        await unit.reports.forget(USER)
    async with work() as unit:
        assert await unit.reports.of(USER) == []
        assert len(await unit.reports.of(OTHER)) == 1
    assert (await get(work, finished)).requested_by is None


async def test_pages_show_each_report_once(work: Work) -> None:
    """Pages are in the order of ids, the newest first, and the last one has no next."""
    ids = [(await stored(work, make_report(OTHER))).id for _ in range(3)]
    async with work() as unit:
        first = await unit.reports.page(PageRequest(limit=2))
        second = await unit.reports.page(PageRequest(limit=2, after=first.next_after))
    assert [each.id for each in first.items] == [ids[2], ids[1]]
    assert [each.id for each in second.items] == [ids[0]]
    assert (first.next_after, second.next_after) == (ids[1], None)


async def test_stuck_reports_have_their_turn_and_do_not_change(work: Work) -> None:
    """Those that run or wait at their turn are found, the oldest change first; those that wait behind them are not."""
    turn = await running(work)
    await stored(work)  # behind it
    other = await stored(work, make_report(OTHER))
    async with work() as unit:
        await unit.reports.enqueue(other.id, at=LATER)
    async with work() as unit:
        assert await unit.reports.stuck(before=EPOCH, limit=9) == []
        assert [each.id for each in await unit.reports.stuck(before=LATER, limit=9)] == [turn.id]
        found = await unit.reports.stuck(before=LATER + SECOND, limit=9)
        assert [each.id for each in found] == [turn.id, other.id]
        assert len(await unit.reports.stuck(before=LATER + SECOND, limit=1)) == 1


async def test_old_reports_are_found_and_purged(work: Work) -> None:
    """Done ones are found by their end; a purge deletes ended ones without a file, up to its limit."""
    old, new = await done(work), await done(work, after=SECOND)
    cancelled = [await stored(work) for _ in range(3)]
    waiting = await stored(work)
    async with work() as unit:
        for report in cancelled:
            await unit.reports.cancel(report.id, at=EPOCH)
        assert [each.id for each in await unit.reports.done_before(LATER, limit=9)] == [old.id]
        assert [each.id for each in await unit.reports.done_before(LATER + SECOND, limit=1)] == [old.id]
        keys = [str(report.storage_key) for report in (old, new)]
        assert set(await unit.reports.recorded([*keys, "reports/other"])) == set(keys)
        assert await unit.reports.purge(before=EPOCH, limit=9) == 0
        assert await unit.reports.purge(before=LATER, limit=2) == 2
        assert await unit.reports.purge(before=LATER, limit=2) == 1
        await unit.reports.delete(new.id)
        await unit.reports.delete(new.id)
        assert await unit.reports.get(new.id) is None
    await get(work, old)
    await get(work, waiting)


async def test_an_account_is_locked(work: Work) -> None:
    """The lock can be taken again in its transaction."""
    async with work() as unit:
        await unit.reports.lock(USER)
        await unit.reports.lock(USER)

"""Requests for reports: turns, limits, repeats, and what callers do with reports."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from tequipy_platform import Delivery, IdempotencyKeyReused, IdempotentRequest, Invalid, NotFound, PageRequest
from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_reporting import (
    Period,
    ReportFormat,
    Reporting,
    ReportNotReady,
    ReportPolicy,
    ReportStatus,
    TooManyReports,
)
from tequipy_reporting.domain.task_names import GENERATE_REPORT, REMOVE_FILES
from tequipy_reporting.testing import (
    FakeReportWriter,
    MemoryReportingUnitOfWork,
    RecordingReportMetrics,
    build_fake_reporting,
)

from .requests import CSV, KIND, PERIOD, TODAY, ask, caller, generate, removals, turns

REPEATED = IdempotentRequest("POST /api/v1/reports", "key", b"digest")


async def test_each_account_has_one_report_in_the_queue(reporting: Reporting, work: MemoryReportingUnitOfWork) -> None:
    """Of many reports of an account one has a message; the end of each adds that of the next, in their order."""
    one, other = caller(), caller()
    mine = [await ask(reporting, one) for _ in range(4)]
    theirs = await ask(reporting, other)
    assert turns(work) == [mine[0].id, theirs.id]
    for report in mine:
        await generate(reporting, report.id)
    await generate(reporting, theirs.id)
    assert turns(work) == [mine[0].id, theirs.id, *(report.id for report in mine[1:])]
    assert {report.status for report in work.reports.rows.values()} == {ReportStatus.DONE}


async def test_requests_at_once_start_one_chain(reporting: Reporting, work: MemoryReportingUnitOfWork) -> None:
    """Ten requests of one account at once add one message."""
    one = caller()
    await asyncio.gather(*(ask(reporting, one) for _ in range(10)))
    assert len(turns(work)) == 1


async def test_a_cancelled_report_gives_its_turn_to_the_next(
    reporting: Reporting, work: MemoryReportingUnitOfWork, metrics: RecordingReportMetrics
) -> None:
    """The next report gets its message when the one with the turn is cancelled, and not when a later one is."""
    one = caller()
    first, second, third = [await ask(reporting, one) for _ in range(3)]
    await reporting.reports.delete(second.id)
    assert turns(work) == [first.id]
    await reporting.reports.delete(first.id)
    assert turns(work) == [first.id, third.id]
    assert [report.status for report in metrics.reports] == [ReportStatus.CANCELLED] * 2
    await generate(reporting, first.id)  # its message still comes
    assert work.reports.rows[first.id].status is ReportStatus.CANCELLED


async def test_the_reports_of_an_account_are_limited(work: MemoryReportingUnitOfWork, clock: FrozenClock) -> None:
    """Over the limit of unfinished reports a request is refused; other accounts are not concerned."""
    reporting = build_fake_reporting(work, clock=clock, policy=ReportPolicy(max_waiting=2))
    one = caller()
    first, _ = [await ask(reporting, one) for _ in range(2)]
    with pytest.raises(TooManyReports) as refusal:
        await ask(reporting, one)
    assert refusal.value.retry_after >= 1
    await ask(reporting, caller())
    await generate(reporting, first.id)
    await ask(reporting, one)


async def test_a_repeated_request_has_one_effect(
    reporting: Reporting, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """A repeat with the same key gets the first report as it was, also when it has ended; another body is refused."""
    one = caller()
    first = await reporting.reports.request(one, KIND, CSV, PERIOD, request=REPEATED)
    await generate(reporting, first.id)
    clock.advance(timedelta(hours=1))
    again = await reporting.reports.request(one, KIND, CSV, PERIOD, request=REPEATED)
    assert (again.id, again.created_at, again.status) == (first.id, first.created_at, ReportStatus.QUEUED)
    assert len(work.reports.rows) == 1
    other_body = IdempotentRequest(REPEATED.route, REPEATED.key, b"other")
    with pytest.raises(IdempotencyKeyReused):
        await reporting.reports.request(one, KIND, CSV, PERIOD, request=other_body)
    await reporting.reports.request(caller(), KIND, CSV, PERIOD, request=REPEATED)
    assert len(work.reports.rows) == 2


async def test_an_invalid_period_stores_nothing(reporting: Reporting, work: MemoryReportingUnitOfWork) -> None:
    """A period in the future is refused before anything is stored."""
    with pytest.raises(Invalid):
        await reporting.reports.request(caller(), KIND, CSV, Period(TODAY, TODAY + timedelta(days=1)))
    assert (work.reports.rows, work.outbox.tasks) == ({}, [])


async def test_a_report_is_cancelled_then_deleted(reporting: Reporting, work: MemoryReportingUnitOfWork) -> None:
    """Deleting an unfinished report cancels it, deleting it again removes the row, and then it is not found."""
    report = await ask(reporting, caller())
    await reporting.reports.delete(report.id)
    assert (await reporting.reports.get(report.id)).status is ReportStatus.CANCELLED
    await reporting.reports.delete(report.id)
    assert removals(work) == [report.id, report.id]
    for use in (reporting.reports.get, reporting.reports.delete, reporting.reports.file):
        with pytest.raises(NotFound):
            await use(report.id)


async def test_only_a_done_report_has_a_file(reporting: Reporting) -> None:
    """Before its end and after it was cancelled a report is not ready."""
    one = caller()
    done, cancelled = await ask(reporting, one), await ask(reporting, one)
    with pytest.raises(ReportNotReady):
        await reporting.reports.file(done.id)
    await reporting.reports.delete(cancelled.id)
    with pytest.raises(ReportNotReady):
        await reporting.reports.file(cancelled.id)
    await generate(reporting, done.id)
    _, stored = await reporting.reports.file(done.id)
    assert stored.size == 23


async def test_a_page_shows_the_reports_of_all_accounts(reporting: Reporting) -> None:
    """Pages show all reports, the newest first, each once."""
    asked = [(await ask(reporting, caller())).id for _ in range(3)]
    page = await reporting.reports.page(PageRequest(limit=2))
    rest = await reporting.reports.page(PageRequest(limit=2, after=page.next_after))
    assert [report.id for report in (*page.items, *rest.items)] == asked[::-1]
    assert rest.next_after is None


async def test_an_account_takes_its_reports_along(reporting: Reporting, work: MemoryReportingUnitOfWork) -> None:
    """The export lists an account's reports; its erasure cancels the unfinished ones and forgets who asked."""
    one, other = caller(), caller()
    done, waiting = await ask(reporting, one), await ask(reporting, one)
    theirs = await ask(reporting, other)
    await generate(reporting, done.id)
    exported = await reporting.personal_data.export(one.user_id)
    assert isinstance(exported, list)
    assert [(each["id"], each["status"]) for each in exported if isinstance(each, dict)] == [
        (str(done.id), "done"),
        (str(waiting.id), "queued"),
    ]
    for _ in range(2):  # the message may come twice
        await reporting.personal_data.erase(Delivery(uuid4(), "reporting.erase_account"), str(one.user_id))
    rows = work.reports.rows
    assert (rows[done.id].requested_by, rows[done.id].status) == (None, ReportStatus.DONE)
    assert (rows[waiting.id].requested_by, rows[waiting.id].status) == (None, ReportStatus.CANCELLED)
    assert (rows[theirs.id].requested_by, rows[theirs.id].status) == (other.user_id, ReportStatus.QUEUED)
    assert await reporting.personal_data.export(one.user_id) == []
    assert removals(work) == [waiting.id]
    await generate(reporting, waiting.id)
    assert rows[waiting.id].status is ReportStatus.CANCELLED


async def test_an_erased_account_is_in_no_file(
    reporting: Reporting, work: MemoryReportingUnitOfWork, storage: MemoryStorage
) -> None:
    """Its PDFs, which name it, expire and their files are removed; those of others, and its CSV files, stay."""
    one, other = caller(), caller()
    writers = {(KIND, report_format): FakeReportWriter(b"content") for report_format in ReportFormat}
    done = []
    for principal, report_format in ((one, ReportFormat.PDF), (one, CSV), (other, ReportFormat.PDF)):
        report = await reporting.reports.request(principal, KIND, report_format, PERIOD)
        await reporting.generation(writers).generate(Delivery(uuid4(), GENERATE_REPORT), str(report.id))
        done.append(report)
    for _ in range(2):  # the message may come twice
        await reporting.personal_data.erase(Delivery(uuid4(), "reporting.erase_account"), str(one.user_id))
    for report_id in removals(work):
        await reporting.housekeeping.remove_files(Delivery(uuid4(), REMOVE_FILES), str(report_id))
    statuses = [work.reports.rows[report.id].status for report in done]
    assert statuses == [ReportStatus.EXPIRED, ReportStatus.DONE, ReportStatus.DONE]
    assert [key.split("/")[1] for key in storage.objects] == [str(report.id) for report in done[1:]]

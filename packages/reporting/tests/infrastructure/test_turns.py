"""Turns of reports on PostgreSQL, with transactions that really run at once."""

import asyncio
from datetime import date
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tequipy_auth import Principal
from tequipy_auth.testing import build_fake_auth
from tequipy_platform import Delivery, SystemClock, TooMany
from tequipy_platform.database import Database, uuid7
from tequipy_platform.testing import EPOCH, MemoryStorage, PlainMailTemplates
from tequipy_reporting import Period, Report, ReportFailure, ReportFormat, Reporting, ReportKind, ReportPolicy
from tequipy_reporting.domain.composition import compose
from tequipy_reporting.infrastructure.repositories import SqlReportingUnitOfWork
from tequipy_reporting.testing import FakeReportWriter, RecordingReportMetrics

KIND, CSV, DAY = ReportKind.USER_ACTIVITY, ReportFormat.CSV, date(2026, 1, 31)


@pytest.fixture
def reporting(database: Database) -> Reporting:
    return compose(
        partial(SqlReportingUnitOfWork, database, SystemClock(), uuid7),
        auth=build_fake_auth(),
        storage=MemoryStorage(SystemClock()),
        policy=ReportPolicy(max_waiting=20),
        clock=SystemClock(),
        new_id=uuid7,
        metrics=RecordingReportMetrics(),
        templates=PlainMailTemplates("tequipy_reporting"),
        public_url="https://app.example.com",
    )


async def ask(reporting: Reporting, principal: Principal) -> Report:
    return await reporting.reports.request(principal, KIND, CSV, Period(DAY, DAY))


def caller() -> Principal:
    return Principal(uuid4(), uuid4(), ("admin",), 1, EPOCH, ("pwd",))


async def messages(database: Database) -> list[str]:
    """Return the ids of the reports whose message was added, in order."""
    query = "select payload->>'report_id' from platform.outbox where task = 'reporting.generate_report' order by id"
    async with database.sessions() as session:
        return [str(report_id) for report_id in await session.scalars(text(query))]


async def test_requests_at_once_start_one_chain_and_keep_the_limit(reporting: Reporting, database: Database) -> None:
    """Of 25 requests at once 20 are stored, which is the limit, and one message is added."""
    one = caller()
    results = await asyncio.gather(*(ask(reporting, one) for _ in range(25)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert [type(each).__mro__[1] for each in refused] == [TooMany] * 5
    assert len(await messages(database)) == 1


async def test_every_report_gets_its_turn(reporting: Reporting, database: Database) -> None:
    """While reports are requested, cancelled and generated at once, each message is that of another report, and in the
    end no report waits.
    """
    one = caller()
    service = reporting.generation({(KIND, CSV): FakeReportWriter(b"x")})

    async def use(number: int) -> None:
        report = await ask(reporting, one)
        if number % 3 == 0:
            await reporting.reports.delete(report.id)

    async def work() -> None:
        handled: set[str] = set()
        while asked or set(await messages(database)) - handled:
            for report_id in set(await messages(database)) - handled:
                handled.add(report_id)
                await service.generate(Delivery(uuid4(), "reporting.generate_report"), report_id)

    asked = [1]
    workers = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.gather(*(use(number) for number in range(18)))
    asked.clear()
    await asyncio.gather(*workers)
    found = await messages(database)
    assert len(found) == len(set(found))
    async with database.sessions() as session:
        statuses = set(await session.scalars(text("select distinct status from reporting.reports")))
    assert statuses <= {"done", "cancelled"}


async def test_a_failure_of_a_newer_release_is_read(reporting: Reporting, database: Database) -> None:
    """During a deployment, an error code that only the newer release knows is shown as an internal error."""
    report = await ask(reporting, caller())
    async with database.sessions.begin() as session:
        statement = "update reporting.reports set status = 'failed', error_code = 'of_a_newer_release'"
        await session.execute(text(statement))
    assert (await reporting.reports.get(report.id)).error_code is ReportFailure.INTERNAL_ERROR


async def test_the_table_refuses_a_second_turn(reporting: Reporting, database: Database) -> None:
    """The database itself refuses that two unfinished reports of an account have their turn."""
    one = caller()
    for _ in range(2):
        await ask(reporting, one)
    with pytest.raises(IntegrityError, match="uq_reports_turn"):
        async with database.sessions() as session:
            await session.execute(text("update reporting.reports set enqueued_at = now()"))

"""The metrics of reporting."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tequipy_platform import SystemClock
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.testing import EPOCH
from tequipy_reporting import ReportFailure, ReportStatus
from tequipy_reporting.infrastructure.gauges import ReportGauges
from tequipy_reporting.infrastructure.metrics import PrometheusReportMetrics
from tequipy_reporting.infrastructure.repositories import SqlReportingUnitOfWork
from tequipy_reporting.wiring import build_gauges

from .test_reports import make_report


def test_reports_are_counted_by_their_end() -> None:
    """Each end is counted with its error code; attempts and files are measured."""
    registry = CollectorRegistry()
    metrics = PrometheusReportMetrics(registry)
    report = make_report()
    metrics.finished(replace(report, status=ReportStatus.DONE, size_bytes=5_000), duration=timedelta(seconds=2))
    failed = replace(report, status=ReportStatus.FAILED, error_code=ReportFailure.TOO_LARGE)
    metrics.finished(failed, duration=timedelta(seconds=1))
    metrics.finished(replace(report, status=ReportStatus.CANCELLED))
    labels = {"kind": "user_activity", "format": "csv"}
    for status, code in (("done", ""), ("failed", "too_large"), ("cancelled", "")):
        name = "reports_finished_total"
        assert registry.get_sample_value(name, labels | {"status": status, "error_code": code}) == 1
    assert registry.get_sample_value("report_duration_seconds_count", labels) == 2
    assert registry.get_sample_value("report_size_bytes_sum", {"format": "csv"}) == 5_000


async def test_unfinished_reports_are_measured(database: Database) -> None:
    """The gauges show the rows, and 0 where there are none; entering it measures at once."""
    registry = CollectorRegistry()
    gauges = build_gauges(database, registry=registry)

    def measured() -> list[float | None]:
        statuses = ("queued", "running")
        return [registry.get_sample_value("reports_unfinished", {"status": status}) for status in statuses]

    assert measured() == [0, 0]
    async with SqlReportingUnitOfWork(database, SystemClock(), uuid7) as work:
        reports = [make_report(uuid4()) for _ in range(3)]
        for report in reports:
            await work.reports.add(report)
        await work.reports.begin(reports[0].id, uuid4(), message_id=uuid4(), at=EPOCH)
        await work.reports.cancel(reports[2].id, at=EPOCH)
    async with gauges, asyncio.timeout(30):
        while measured() != [1, 1]:
            await asyncio.sleep(0.01)


async def test_measuring_ends_although_a_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving the gauges ends their task also when the driver swallows the first cancellation, as Python 3.11 can."""
    began, swallowed = asyncio.Event(), asyncio.Event()

    async def measure(_: ReportGauges) -> None:
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if not swallowed.is_set():
            swallowed.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(ReportGauges, "measure", measure)
    database = build_database(DatabaseSettings(url=SecretStr("postgresql+asyncpg://127.0.0.1:1/none")))

    async def enter_and_leave() -> None:
        async with build_gauges(database):
            await began.wait()

    leaving = asyncio.create_task(enter_and_leave())
    ended, _ = await asyncio.wait({leaving}, timeout=5)
    leaving.cancel()
    assert ended
    assert swallowed.is_set()

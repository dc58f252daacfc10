"""Gauges of the rows of reporting, which one kind of process measures."""

from contextlib import AbstractAsyncContextManager
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import func, select

from tequipy_platform.database import Database
from tequipy_platform.messaging import periodic_measurement
from tequipy_reporting.domain.reports import UNFINISHED
from tequipy_reporting.infrastructure.models import ReportRow

_MEASURE_SECONDS: Final = 15.0


class ReportGauges:
    """Measures the rows of reports.

    Every process that does so measures the same rows, so a dashboard takes the maximum over processes.
    """

    def __init__(self, database: Database, registry: CollectorRegistry | None) -> None:
        self._database = database
        self._unfinished = Gauge(
            "reports_unfinished", "Reports that wait (queued) or run.", ["status"], registry=registry
        )
        for status in UNFINISHED:
            self._unfinished.labels(status.value).set(0)

    async def measure(self) -> None:
        """Read the rows, and set every gauge."""
        query = select(ReportRow.status, func.count()).group_by(ReportRow.status)
        query = query.where(ReportRow.status.in_([status.value for status in UNFINISHED]))
        async with self._database.sessions() as session:
            counts = dict((await session.execute(query)).all())
        for status in UNFINISHED:
            self._unfinished.labels(status.value).set(counts.get(status.value, 0))


def build_gauges(database: Database, *, registry: CollectorRegistry | None = None) -> AbstractAsyncContextManager[None]:
    """Return an async context manager that measures the rows of reporting; one kind of process enters it.

    Metrics in `registry`: `reports_unfinished{status}` is the number of reports that wait or run.
    """
    gauges = ReportGauges(database, registry)
    return periodic_measurement(gauges.measure, seconds=_MEASURE_SECONDS, event="reporting_measurement_failed")

"""Gauges of the rows of reporting, which one kind of process measures."""

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import func, select

from tequipy_platform.database import Database
from tequipy_reporting.domain.reports import UNFINISHED
from tequipy_reporting.infrastructure.models import ReportRow

logger = logging.getLogger(__name__)

_MEASURE_SECONDS: Final = 15.0


class ReportingGauges:
    """Measures the rows of reporting periodically, while it is entered.

    Every process that does so measures the same rows, so a dashboard takes the maximum over processes.
    """

    def __init__(self, database: Database, registry: CollectorRegistry | None) -> None:
        self._database = database
        self._unfinished = Gauge(
            "reports_unfinished", "Reports that wait (queued) or run.", ["status"], registry=registry
        )
        for status in UNFINISHED:
            self._unfinished.labels(status.value).set(0)
        self._measuring: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._measuring = asyncio.create_task(self._measure_periodically(), name="reporting-measure")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._measuring is not None:
            self._measuring.cancel()
            with suppress(asyncio.CancelledError):
                await self._measuring

    async def measure(self) -> None:
        """Read the rows, and set every gauge."""
        query = select(ReportRow.status, func.count()).group_by(ReportRow.status)
        query = query.where(ReportRow.status.in_([status.value for status in UNFINISHED]))
        async with self._database.sessions() as session:
            counts = dict((await session.execute(query)).all())
        for status in UNFINISHED:
            self._unfinished.labels(status.value).set(counts.get(status.value, 0))

    async def _measure_periodically(self) -> None:
        """Measure until it is cancelled; of errors in a row the first one is logged."""
        failed = False
        while True:
            try:
                await self.measure()
                failed = False
            except Exception:  # any error may be temporary
                if not failed:
                    logger.warning("reporting_measurement_failed", exc_info=True)
                failed = True
            await asyncio.sleep(_MEASURE_SECONDS)

"""Fakes of the ports other than the repositories."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

from tequipy_reporting.domain.ports import Chunk, ReportMetrics, ReportWriter
from tequipy_reporting.domain.reports import Report


class FakeReportWriter(ReportWriter):
    """Writes the given pieces for every report."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def write(self, report: Report) -> AsyncGenerator[Chunk]:  # noqa: ARG002 -- the port's signature
        """Yield the pieces."""
        for number, piece in enumerate(self._pieces, start=1):
            yield Chunk(piece, number / len(self._pieces))


class RecordingReportMetrics(ReportMetrics):
    """Records the reports that have ended, in order, and the aggregation."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.days_counted = 0
        self.aggregated_at: datetime | None = None

    def finished(self, report: Report, *, duration: timedelta | None = None) -> None:  # noqa: ARG002 -- as above
        """Record a report."""
        self.reports.append(report)

    def day_counted(self) -> None:
        """Count a day."""
        self.days_counted += 1

    def aggregated(self, *, at: datetime) -> None:
        """Record the time."""
        self.aggregated_at = at

"""Fakes of the ports other than the repositories."""

import json
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from importlib.resources import files

from tequipy_platform import MailTemplates, MailText
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


class PlainMailTemplates(MailTemplates):
    """Renders mails with the template's name as the subject and the values as the text, one per line.

    It knows reporting's templates by their samples, and refuses other names and other values.
    """

    def __init__(self) -> None:
        samples = files("tequipy_reporting") / "templates/samples.json"
        self._samples: dict[str, dict[str, str]] = json.loads(samples.read_text(encoding="utf-8"))

    def render(self, template: str, **values: object) -> MailText:
        """Return the template's name and the values."""
        if values.keys() != self._samples[template].keys():
            raise LookupError(f"mail template {template!r} has the values {', '.join(self._samples[template])}")
        return MailText(template, "".join(f"{name}: {value}\n" for name, value in values.items()))

"""The daily activity as a document (PDF) with a summary, a chart and a table."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tequipy_auth import AdministrationService
from tequipy_platform import NotFound
from tequipy_reporting.domain.activity import DailyActivity
from tequipy_reporting.domain.ports import Chunk, ReportWriter
from tequipy_reporting.domain.reports import Period, Report
from tequipy_reporting.domain.services.activity import ActivityService

_CHUNK_BYTES: Final = 64 * 1024
_DELETED: Final = "A deleted account"


class PdfReport(ReportWriter):
    """Writes a page for up to 14 days, and another one for about 40 further days."""

    def __init__(self, activity: ActivityService, administration: AdministrationService) -> None:
        self._activity = activity
        self._administration = administration

    async def write(self, report: Report) -> AsyncGenerator[Chunk]:
        """Draw the document in a thread; with its ten pages at most it fits into memory."""
        days = await self._activity.days(report.period)
        name = await self._name_of(report.requested_by)
        content = await asyncio.to_thread(_draw, report.period, name, report.created_at, days)
        for start in range(0, len(content), _CHUNK_BYTES):
            end = min(start + _CHUNK_BYTES, len(content))
            yield Chunk(content[start:end], end / len(content))

    async def _name_of(self, user_id: UUID | None) -> str:
        """Return the name of an account, or its address if it has none."""
        if user_id is None:
            return _DELETED
        try:
            user = await self._administration.user(user_id)
        except NotFound:
            return _DELETED
        return user.name or user.email.written


def _draw(period: Period, requested_by: str, requested_at: datetime, days: Sequence[DailyActivity]) -> bytes:
    # Only processes that draw a document load the libraries, which takes 31 MiB.
    from tequipy_reporting.infrastructure.pdf.document import ActivityDocument, render  # noqa: PLC0415

    return render(ActivityDocument(period=period, requested_by=requested_by, requested_at=requested_at, days=days))

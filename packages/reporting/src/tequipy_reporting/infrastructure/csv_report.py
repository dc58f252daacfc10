"""Audit events as comma-separated values (RFC 4180), which spreadsheets may open."""

import csv
import re
from collections.abc import AsyncGenerator
from datetime import UTC
from functools import lru_cache
from io import StringIO
from typing import Final

from tequipy_auth import AuditLog, AuditRecord
from tequipy_reporting.domain.ports import Chunk, ReportWriter
from tequipy_reporting.domain.reports import Report

COLUMNS: Final = (
    "at",
    "action",
    "outcome",
    "reason",
    "actor_id",
    "subject_id",
    "session_id",
    "ip",
    "user_agent",
    "correlation_id",
)

_CHUNK_CHARACTERS: Final = 64 * 1024
_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""The first characters of a formula (OWASP, CSV injection), in full width too."""

_INNER_FORMULA: Final = re.compile(r'[;\t\r\n](?=[ "]*[=+\-@\uff1d\uff0b\uff0d\uff20])')
"""Where one may begin inside of a text: spreadsheets of some languages separate cells by semicolons, and then read
quotes otherwise."""


class CsvReport(ReportWriter):
    """Writes one line for each audit event, oldest first; times are RFC 3339 in UTC, and an unknown value is empty."""

    def __init__(self, audit_log: AuditLog) -> None:
        self._audit_log = audit_log

    async def write(self, report: Report) -> AsyncGenerator[Chunk]:
        """Stream the events; the progress is the part of the period that has been written."""
        since, until = report.period.since, report.period.until
        lines = StringIO(newline="")
        write_line = csv.writer(lines).writerow
        write_line(COLUMNS)
        async for record in self._audit_log.stream(since, until):
            write_line(_values(record))
            if lines.tell() >= _CHUNK_CHARACTERS:
                yield Chunk(lines.getvalue().encode(), (record.at - since) / (until - since))
                lines.seek(0)
                lines.truncate()
        yield Chunk(lines.getvalue().encode(), 1)


def _values(record: AuditRecord) -> list[object]:
    event = record.event
    return [
        f"{record.at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z",
        _plain(event.action),
        _plain(event.outcome),
        _plain(event.reason),
        event.actor_id,
        event.subject_id,
        event.session_id,
        _plain(event.client.ip),
        _plain(event.client.user_agent),
        _plain(record.correlation_id),
    ]


@lru_cache(maxsize=1024)  # most texts come again and again, and it takes two microseconds
def _plain(text: str | None) -> str | None:
    """Return a text that no spreadsheet takes for a formula: an apostrophe stands before each that could be one."""
    if not text:
        return text
    if text.lstrip(' "')[:1] in _FORMULA:
        text = f"'{text}"
    return _INNER_FORMULA.sub(r"\g<0>'", text)

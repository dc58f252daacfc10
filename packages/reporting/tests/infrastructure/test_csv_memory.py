"""The memory that a report as CSV takes, however many events there are."""

import tracemalloc
from datetime import UTC, date, datetime
from uuid import UUID

from sqlalchemy import text

from tequipy_auth.infrastructure.repositories import SqlAuditLog
from tequipy_platform.database import Database
from tequipy_reporting import Period, Report, ReportFormat, ReportKind
from tequipy_reporting.infrastructure.csv_report import CsvReport

MEBIBYTE = 1024 * 1024
FILL = """
insert into auth.audit_events (id, at, subject_id, action, outcome, user_agent, metadata)
select gen_random_uuid(), timestamptz '2026-01-01 00:00Z' + make_interval(secs => n), gen_random_uuid(), 'login_ok',
    'success', repeat('agent ', 100), '{}'
from generate_series(cast(:first as int), cast(:last as int)) as n
"""


async def peak_of(database: Database) -> tuple[int, float]:
    """Return the bytes of a report over all events, and the MiB that were allocated at once while it was written."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    period = Period(date(2026, 1, 1), date(2026, 1, 2))
    report = Report(UUID(int=1), ReportKind.USER_ACTIVITY, ReportFormat.CSV, period, None, created_at=at, updated_at=at)
    tracemalloc.start()
    try:
        size = sum([len(chunk.data) async for chunk in CsvReport(SqlAuditLog(database)).write(report)])
        return size, tracemalloc.get_traced_memory()[1] / MEBIBYTE
    finally:
        tracemalloc.stop()


async def test_memory_does_not_grow_with_the_number_of_events(database: Database) -> None:
    """Three times as many events need no more memory, which is less than the file has bytes."""
    found = []
    for first, last in ((1, 4_000), (4_001, 12_000)):
        async with database.sessions.begin() as session:
            await session.execute(text(FILL), {"first": first, "last": last})
        found.append(await peak_of(database))
    (_, few), (size, many) = found
    print(f"\n{few:.1f} MiB for 4,000 events, {many:.1f} MiB for 12,000 with {size / MEBIBYTE:.1f} MiB of text")
    assert many < few + 2
    assert many < size / MEBIBYTE

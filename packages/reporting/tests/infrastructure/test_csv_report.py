"""Reports as comma-separated values: their lines, and what text of clients may become in a spreadsheet."""

import csv
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_auth import AuditAction, AuditEvent, Client, Outcome
from tequipy_auth.testing import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_observability import RequestContext, request_context
from tequipy_platform.testing import FrozenClock
from tequipy_reporting import Chunk, Period, Report, ReportFormat, ReportKind
from tequipy_reporting.infrastructure.csv_report import COLUMNS, CsvReport

NOW = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
PERIOD = Period(date(2026, 2, 3), date(2026, 2, 4))
HEADER = "at,action,outcome,reason,actor_id,subject_id,session_id,ip,user_agent,correlation_id"


class Audit:
    """An audit in memory, which records with the time of its clock."""

    def __init__(self) -> None:
        self.clock = FrozenClock(NOW)
        self.trail = MemoryAuthUnitOfWork(self.clock).audit

    async def chunks(self) -> list[Chunk]:
        report = Report(
            UUID(int=1), ReportKind.USER_ACTIVITY, ReportFormat.CSV, PERIOD, UUID(int=2), created_at=NOW, updated_at=NOW
        )
        return [chunk async for chunk in CsvReport(MemoryAuditLog(self.trail)).write(report)]

    async def content(self) -> str:
        return b"".join([chunk.data for chunk in await self.chunks()]).decode()

    async def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(StringIO(await self.content(), newline="")))


async def test_an_event_is_a_line_with_all_columns() -> None:
    """Each column of the contract has its value, or is empty; lines end as RFC 4180 says, and times are in UTC."""
    audit = Audit()
    with request_context(RequestContext(correlation_id="a-request")):
        audit.trail.record(
            AuditEvent(
                AuditAction.LOGIN_FAILED,
                Outcome.FAILURE,
                "invalid_credentials",
                actor_id=UUID(int=3),
                subject_id=UUID(int=4),
                session_id=UUID(int=5),
                client=Client("2001:db8::1", 'a "quoted" name, and more'),
            )
        )
    audit.trail.record(AuditEvent("of_a_newer_release"))
    ids = ",".join(f"00000000-0000-0000-0000-00000000000{number}" for number in (3, 4, 5))
    assert (await audit.content()).split("\r\n") == [
        HEADER,
        (
            f"2026-02-03T04:05:06.789000Z,login_failed,failure,invalid_credentials,{ids},2001:db8::1,"
            '"a ""quoted"" name, and more",a-request'
        ),
        "2026-02-03T04:05:06.789000Z,of_a_newer_release,success,,,,,,,",
        "",
    ]


async def test_without_events_there_is_the_header() -> None:
    """A period without events is one line."""
    assert await Audit().content() == f"{HEADER}\r\n"


async def test_the_period_is_in_utc_and_includes_its_last_day() -> None:
    """An event before the first day or after the last one is left out."""
    audit = Audit()
    for moment in (
        PERIOD.since - timedelta.resolution,
        PERIOD.since,
        PERIOD.until - timedelta.resolution,
        PERIOD.until,
    ):
        audit.clock.advance(moment - audit.clock.now())
        audit.trail.record(AuditEvent(AuditAction.LOGIN_OK))
    assert [row["at"] for row in await audit.rows()] == ["2026-02-03T00:00:00Z", "2026-02-04T23:59:59.999999Z"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
async def test_text_of_clients_is_no_formula(start: str) -> None:
    """A text that begins like a formula gets an apostrophe in front, in each column that a client can fill."""
    audit = Audit()
    text = f'{start}HYPERLINK("https://example.com")'
    with request_context(RequestContext(correlation_id=text)):
        audit.trail.record(AuditEvent(text, text, text, client=Client(text, text)))
    (row,) = await audit.rows()
    filled = {name: value for name, value in row.items() if value and name != "at"}
    assert filled == dict.fromkeys(["action", "outcome", "reason", "ip", "user_agent", "correlation_id"], f"'{text}")


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("Mozilla/5.0;=1+1", "Mozilla/5.0;'=1+1"),
        ('Mozilla/5.0; "=1+1"', 'Mozilla/5.0;\' "=1+1"'),
        ("Mozilla/5.0\n@SUM(1)\t-1", "Mozilla/5.0\n'@SUM(1)\t'-1"),
        (" =1+1", "' =1+1"),
        ("Mozilla/5.0 (X11; Linux x86_64) a=b-c@d;", "Mozilla/5.0 (X11; Linux x86_64) a=b-c@d;"),
    ],
)
async def test_a_text_is_no_formula_where_semicolons_separate_cells(agent: str, shown: str) -> None:
    """What follows a semicolon, tab or line end gets an apostrophe too; an ordinary browser's name stays as it is."""
    audit = Audit()
    audit.trail.record(AuditEvent(AuditAction.LOGIN_OK, client=Client("192.0.2.1", agent)))
    assert [row["user_agent"] for row in await audit.rows()] == [shown]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
        | st.text(st.sampled_from("=+-@;,\t\r\n \"'a")),
        max_size=5,
    )
)
async def test_any_text_stays_in_its_field(agents: Sequence[str]) -> None:
    """A reader of CSV gets one row for each event, with the same text but for apostrophes, and no formula."""
    audit = Audit()
    for agent in agents:
        audit.trail.record(AuditEvent(AuditAction.LOGIN_OK, client=Client("192.0.2.1", agent)))
    rows = await audit.rows()
    shown = [row["user_agent"] for row in rows]
    assert [text.replace("'", "") for text in shown] == [agent.replace("'", "") for agent in agents]
    assert {row["ip"] for row in rows} <= {"192.0.2.1"}
    cells = [cell.lstrip(' "') for text in shown for cell in re.split(r"[;\t\r\n]", text)]
    assert [cell for cell in cells if cell.startswith(tuple("=+-@"))] == []


async def test_the_file_comes_in_chunks_with_growing_progress() -> None:
    """Chunks have about 64 KiB; their progress is the part of the period that they reach, and at last 1."""
    audit = Audit()
    audit.clock.advance(PERIOD.since - NOW)
    for _ in range(2000):
        audit.trail.record(AuditEvent(AuditAction.LOGIN_OK, client=Client("192.0.2.1", "agent " * 20)))
        audit.clock.advance(timedelta(minutes=1))
    chunks = await audit.chunks()
    assert len(chunks) > 3
    assert all(64 * 1024 <= len(chunk.data) < 66 * 1024 for chunk in chunks[:-1])
    assert all(before.progress < after.progress for before, after in pairwise(chunks))
    assert abs(chunks[0].progress - 0.1) < 0.1
    assert chunks[-1].progress == 1
    assert ",".join(COLUMNS) == HEADER

"""Pages of an audit of 100,000 events while others arrive, and the stream of all of them."""

import asyncio
import time
from datetime import UTC, datetime
from statistics import median
from uuid import UUID

import pytest
from sqlalchemy import text

from tequipy_auth import AuditAction, AuditEvent, AuditFilter
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork
from tequipy_platform import PageRequest, SystemClock
from tequipy_platform.database import Database, uuid7

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]

EVENTS, ARRIVING = 100_000, 1_000
SUBJECT = UUID(int=7)
# UUIDv7: the milliseconds, the version, and random bits (RFC 9562, section 5.7).
FILL = """
insert into auth.audit_events (id, at, subject_id, action, outcome, metadata)
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
        || '8' || substr(md5(n::text), 4, 15))::uuid,
    at, :subject, case when n % 10 = 0 then 'login_failed' else 'login_ok' end, 'success', '{}'
from (select n, now() - make_interval(secs => n) as at from generate_series(1, :events) as n) as numbered
"""

IDS = "select id from auth.audit_events where action = coalesce(cast(:action as text), action)"


async def fill(database: Database) -> None:
    async with database.sessions() as session:
        await session.execute(text(FILL), {"subject": SUBJECT, "events": EVENTS})
        await session.commit()
        await session.execute(text("analyze auth.audit_events"))
        await session.commit()


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(AuditFilter(), id="all"),
        pytest.param(AuditFilter(SUBJECT), id="of one account"),
        pytest.param(AuditFilter(SUBJECT, action="login_failed"), id="of one action", marks=pytest.mark.quick),
    ],
)
async def test_every_event_is_on_one_page_while_others_arrive(database: Database, wanted: AuditFilter) -> None:
    """No event is missing or doubled while 1,000 arrive, and the last page takes about as long as the first."""
    await fill(database)
    log = SqlAuditLog(database)

    async def arrive() -> None:
        for _ in range(ARRIVING):
            async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as work:
                work.audit.record(AuditEvent(AuditAction.LOGIN_OK, subject_id=SUBJECT))

    arriving = asyncio.create_task(arrive())
    found: list[UUID] = []
    seconds: list[float] = []
    request = PageRequest(limit=50)
    while True:
        began = time.perf_counter()
        page = await log.page(request, wanted)
        seconds.append(time.perf_counter() - began)
        found += [record.id for record in page.items]
        if page.next_after is None:
            break
        request = PageRequest(50, page.next_after)
    await arriving
    first, last = (median(part) * 1000 for part in (seconds[:50], seconds[-50:]))
    doubled = len(found) - len(set(found))
    async with database.sessions() as session:
        ids = text(
            "select id from auth.audit_events where at < now() and action = coalesce(cast(:action as text), action)"
        )
        before = set(await session.scalars(ids, {"action": wanted.action}))
    missed = len({each for each in before if each <= found[0]} - set(found))
    p50 = f"p50 {first:.1f} ms of the first pages, {last:.1f} ms of the last"
    print(f"\n{len(seconds)} pages: {p50}; {doubled} doubled, {missed} missed")
    assert doubled == 0
    assert missed == 0
    assert len(found) >= (EVENTS if wanted.action is None else EVENTS // 10)
    assert last < 10 * first


async def test_all_events_are_streamed(database: Database) -> None:
    """The stream returns every event once, oldest first; prints its speed."""
    await fill(database)
    ids: list[UUID] = []
    times: list[datetime] = []
    began, cpu = time.perf_counter(), time.process_time()
    async for record in SqlAuditLog(database).stream(datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC)):
        ids.append(record.id)
        times.append(record.at)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"\n{EVENTS:,} events streamed in {seconds:.1f} s, {cpu / EVENTS * 1e6:.0f} µs of CPU each")
    assert len(set(ids)) == len(ids) == EVENTS
    assert times == sorted(times)

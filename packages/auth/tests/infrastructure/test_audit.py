"""The audit: one suite over memory and PostgreSQL alike, and what the database itself forbids."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tequipy_auth import AuditAction, AuditEvent, AuditLog, AuditRecord, AuthUnitOfWork, Client, Outcome
from tequipy_auth.infrastructure import audit
from tequipy_auth.infrastructure.audit import SqlAuditLog
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_observability import RequestContext, request_context
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock
from tequipy_platform.wiring import Database

MOMENT = timedelta(seconds=1)
Store = tuple[Callable[[], AuthUnitOfWork], AuditLog]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(params=["memory", "postgresql"])
def store(request: pytest.FixtureRequest, clock: FrozenClock) -> Store:
    """Return the maker of units of work over one store, and the log that reads it."""
    if request.param == "memory":
        held = MemoryAuthUnitOfWork(clock)
        return lambda: held, MemoryAuditLog(held.audit)
    database: Database = request.getfixturevalue("database")
    ids = CountingIds()
    return lambda: SqlAuthUnitOfWork(database, clock, ids), SqlAuditLog(database)


async def read(log: AuditLog, **bounds: Any) -> list[AuditRecord]:
    bounds = {"since": EPOCH, "until": EPOCH + timedelta(days=1)} | bounds
    return [record async for record in log.stream(**bounds)]


async def test_what_is_recorded_is_read_again(store: Store) -> None:
    """Every field comes back, with the time of the record and the correlation id of the request."""
    work, log = store
    ids = CountingIds()
    event = AuditEvent(
        AuditAction.LOGIN_FAILED,
        Outcome.FAILURE,
        "invalid_credentials",
        actor_id=ids(),
        subject_id=ids(),
        session_id=ids(),
        client=Client("2001:db8::1", "test"),
        metadata={"operation": "login", "count": 2},
    )
    with request_context(RequestContext(correlation_id="a-request")):
        async with work() as unit:
            unit.audit.record(event)
            unit.audit.record(AuditEvent(AuditAction.REGISTERED))
    whole, bare = await read(log)
    assert (whole.event, whole.at, whole.correlation_id) == (event, EPOCH, "a-request")
    assert bare.event == AuditEvent(AuditAction.REGISTERED)
    assert whole.id != bare.id


async def test_what_is_rolled_back_leaves_no_record(store: Store) -> None:
    """A record shares the fate of what it records."""
    work, log = store

    async def fail() -> None:
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.REGISTERED))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await read(log) == []


async def test_the_stream_is_bounded_and_ordered(
    store: Store, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`since` is inclusive and `until` is not, only the asked actions come, oldest first, batch after batch."""
    monkeypatch.setattr(audit, "BATCH_SIZE", 2)
    work, log = store
    for _ in range(3):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
            unit.audit.record(AuditEvent(AuditAction.LOGOUT))
            unit.audit.record(AuditEvent(AuditAction.VERIFIED))
        clock.advance(MOMENT)
    everything = await read(log)
    assert [record.at for record in everything] == [EPOCH + n * MOMENT for n in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
    assert len({record.id for record in everything}) == 9
    some = await read(
        log,
        since=EPOCH + MOMENT,
        until=EPOCH + 2 * MOMENT,
        actions=[AuditAction.LOGIN_OK, AuditAction.LOGOUT],
    )
    assert [(record.at, record.event.action) for record in some] == [
        (EPOCH + MOMENT, AuditAction.LOGIN_OK),
        (EPOCH + MOMENT, AuditAction.LOGOUT),
    ]
    assert await read(log, actions=[]) == []


@pytest.mark.parametrize("change", ["update auth.audit_events set reason = 'none'", "delete from auth.audit_events"])
async def test_the_database_refuses_to_change_the_audit(database: Database, change: str) -> None:
    """Append-only is no promise of the program alone."""
    async with SqlAuthUnitOfWork(database, FrozenClock(), CountingIds()) as unit:
        unit.audit.record(AuditEvent(AuditAction.REGISTERED))
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.engine.begin() as connection:
            await connection.execute(text(change))
    assert len(await read(SqlAuditLog(database))) == 1

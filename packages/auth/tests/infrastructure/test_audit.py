"""The audit: one contract suite for memory and PostgreSQL, and the restrictions of the database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tequipy_auth import (
    AuditAction,
    AuditEvent,
    AuditFilter,
    AuditLog,
    AuditRecord,
    AuthPolicy,
    AuthUnitOfWork,
    Client,
    Outcome,
)
from tequipy_auth.domain.policy import LEEWAY, MIN_AUDIT_RETENTION
from tequipy_auth.domain.services.housekeeping import Housekeeping
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork, audit
from tequipy_auth.testing import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_observability import RequestContext, request_context
from tequipy_platform import Delivery, PageRequest, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock

MOMENT = timedelta(seconds=1)
Store = tuple[Callable[[], AuthUnitOfWork], AuditLog]


@pytest.fixture(params=["memory", "postgresql"])
def store(request: pytest.FixtureRequest, clock: FrozenClock) -> Store:
    """Return a function that creates units of work over one store, and the log that reads it."""
    if request.param == "memory":
        held = MemoryAuthUnitOfWork(clock)
        return lambda: held, MemoryAuditLog(held.audit)
    database: Database = request.getfixturevalue("database")
    ids = CountingIds()
    return lambda: SqlAuthUnitOfWork(database, clock, ids), SqlAuditLog(database)


async def read(log: AuditLog, **bounds: Any) -> list[AuditRecord]:
    bounds = {"since": EPOCH, "until": EPOCH + timedelta(days=1)} | bounds
    return [record async for record in log.stream(**bounds)]


async def test_recorded_events_are_returned(store: Store) -> None:
    """Every field is returned, with the time of the event and the correlation id of the request."""
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


async def test_a_rollback_discards_the_event(store: Store) -> None:
    """An event is stored only when its unit of work commits."""
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
    """`since` is inclusive, `until` exclusive; only the requested actions are returned, oldest first, in batches."""
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


async def test_events_are_returned_in_pages(store: Store, clock: FrozenClock) -> None:
    """Every wanted event is on one page, the newest first, although others arrive between two pages."""
    work, log = store
    subject = UUID(int=1)
    for _ in range(5):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK, subject_id=subject))
            unit.audit.record(AuditEvent(AuditAction.LOGOUT, subject_id=subject))
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
        clock.advance(MOMENT)
    wanted = AuditFilter(subject, "login_ok", EPOCH + MOMENT, EPOCH + 4 * MOMENT)
    found: list[AuditRecord] = []
    request = PageRequest(limit=2)
    while True:
        page = await log.page(request, wanted)
        found += page.items
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK, subject_id=subject))
        if page.next_after is None:
            break
        request = PageRequest(2, page.next_after)
    assert [record.at for record in found] == [EPOCH + seconds * MOMENT for seconds in (3, 2, 1)]
    assert {(record.event.subject_id, record.event.action) for record in found} == {(subject, "login_ok")}


async def test_an_action_of_a_newer_release_is_returned_as_it_is(store: Store) -> None:
    """A reader that does not know an action or outcome returns its name, and goes on."""
    work, log = store
    async with work() as unit:
        unit.audit.record(AuditEvent("teleported", "unclear"))
        unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
    unknown, known = await read(log)
    assert (unknown.event.action, unknown.event.outcome) == ("teleported", "unclear")
    assert known.event.action is AuditAction.LOGIN_OK


async def test_old_events_are_purged_in_batches(store: Store, clock: FrozenClock) -> None:
    """The oldest events are deleted first, no more than the limit, and none from the given time or later."""
    work, log = store
    for _ in range(3):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
        clock.advance(MOMENT)
    clock.advance(timedelta(days=400))
    purged = []
    for _ in range(2):
        async with work() as unit:
            purged.append(await unit.audit.purge(before=EPOCH + MOMENT, limit=2))
    assert purged == [1, 0]
    async with work() as unit:
        assert await unit.audit.purge(before=EPOCH + timedelta(days=1), limit=1) == 1
    assert [record.at for record in await read(log)] == [EPOCH + 2 * MOMENT]


@pytest.mark.parametrize("age", [timedelta(0), MIN_AUDIT_RETENTION - MOMENT])
async def test_recent_events_cannot_be_purged(database: Database, age: timedelta) -> None:
    """A caller of the purge cannot delete events of the last week, because the database uses its own clock."""
    clock = SystemClock()
    for work in (MemoryAuthUnitOfWork(clock), SqlAuthUnitOfWork(database, clock, uuid7)):
        async with work as unit:
            with pytest.raises((ValueError, DBAPIError), match="last 7 days cannot be purged"):
                await unit.audit.purge(before=clock.now() - age, limit=1)


async def test_a_purge_tolerates_a_clock_ahead_of_the_database(database: Database) -> None:
    """A process whose clock is ahead by less than the leeway can purge with the minimum retention."""
    clock = FrozenClock(datetime.now(UTC) - timedelta(days=8))
    async with SqlAuthUnitOfWork(database, clock, uuid7) as unit:
        unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
    clock.advance(timedelta(days=8) + LEEWAY / 2)
    policy = AuthPolicy(audit_retention=MIN_AUDIT_RETENTION)
    housekeeping = Housekeeping(lambda: SqlAuthUnitOfWork(database, clock, uuid7), clock, policy)
    await housekeeping.purge(Delivery(uuid7(), "auth.purge"))
    until = clock.now()
    assert await read(SqlAuditLog(database), since=until - timedelta(days=30), until=until) == []


ANNOUNCE = "select set_config('tequipy_auth.purged_table', 'auth.audit_events'::regclass::oid::text, true)"


@pytest.mark.parametrize(
    "change",
    [
        "update auth.audit_events set reason = 'none'",
        "delete from auth.audit_events",
        "truncate auth.audit_events",
        "truncate auth.users, auth.audit_events cascade",
        "announce; update auth.audit_events set reason = 'none'",
        "announce; truncate auth.audit_events",
        "select auth.purge_audit_events(now() - interval '8 days', 1); delete from auth.audit_events",
    ],
)
async def test_the_database_refuses_to_change_the_audit(database: Database, change: str) -> None:
    """The database refuses UPDATE, DELETE and TRUNCATE, also after a purge in the same transaction."""
    async with SqlAuthUnitOfWork(database, FrozenClock(), CountingIds()) as unit:
        unit.audit.record(AuditEvent(AuditAction.REGISTERED))
        unit.audit.record(AuditEvent(AuditAction.REGISTERED))
    *before, refused = change.replace("announce", ANNOUNCE).split("; ")
    async with database.engine.connect() as connection:
        for statement in before:
            await connection.execute(text(statement))
        with pytest.raises(DBAPIError, match="append-only"):
            await connection.execute(text(refused))
    assert len(await read(SqlAuditLog(database))) == 2


async def test_other_roles_can_delete_only_with_the_purge(database: Database) -> None:
    """A role other than the owner cannot delete directly, and needs only EXECUTE for the purge."""
    async with SqlAuthUnitOfWork(database, FrozenClock(), CountingIds()) as unit:
        unit.audit.record(AuditEvent(AuditAction.REGISTERED))
    purge = text("select auth.purge_audit_events(now() - interval '8 days', 1)")
    async with database.engine.connect() as connection:
        for statement in (
            "create role app_under_test",
            "grant usage on schema auth to app_under_test",
            "grant select, delete on auth.audit_events to app_under_test",
            "set local role app_under_test",
            ANNOUNCE,
        ):
            await connection.execute(text(statement))
        for refused, why in ((text("delete from auth.audit_events"), "append-only"), (purge, "permission denied")):
            with pytest.raises(DBAPIError, match=why):
                async with connection.begin_nested():
                    await connection.execute(refused)
        for statement in (
            "reset role",
            "grant execute on function auth.purge_audit_events to app_under_test",
            "set local role app_under_test",
        ):
            await connection.execute(text(statement))
        assert await connection.scalar(purge) == 1
        await connection.rollback()


async def test_the_trigger_ignores_functions_in_other_schemas(database: Database) -> None:
    """A role with its own schema cannot replace the functions that the trigger calls."""
    async with SqlAuthUnitOfWork(database, FrozenClock(), CountingIds()) as unit:
        unit.audit.record(AuditEvent(AuditAction.REGISTERED))
    async with database.engine.connect() as connection:
        for statement in (
            "create role app_under_test",
            "create schema theirs authorization app_under_test",
            "grant usage on schema auth to app_under_test",
            "grant select, delete on auth.audit_events to app_under_test",
            "set local role app_under_test",
            "create function theirs.pg_get_userbyid(oid) returns name language sql as 'select current_user'",
            "set local search_path = theirs, pg_catalog",
            ANNOUNCE,
        ):
            await connection.execute(text(statement))
        with pytest.raises(DBAPIError, match="append-only"):
            await connection.execute(text("delete from auth.audit_events"))
        await connection.rollback()

"""The restrictions by which the database protects the audit."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tequipy_auth import (
    AuditAction,
    AuditEvent,
    AuditLog,
    AuditRecord,
)
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock


async def read(log: AuditLog, **bounds: Any) -> list[AuditRecord]:
    bounds = {"since": EPOCH, "until": EPOCH + timedelta(days=1)} | bounds
    return [record async for record in log.stream(**bounds)]


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

"""A PostgreSQL that is killed, full, slow or frozen: callers get `Unavailable` in time, and can use it afterwards."""

import asyncio
import time
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest
from sqlalchemy import make_url, text

from tequipy_devstack.servers import PostgresServer
from tequipy_platform import Unavailable
from tequipy_platform.database import Database, build_database

from .work import execute, select_one, settings, unit_of_work


async def test_a_killed_server_is_unavailable_until_it_is_back(private_postgres: PostgresServer) -> None:
    """A killed server causes `Unavailable` until it is back; no restart is needed."""
    async with build_database(settings(private_postgres.url("postgres"))) as database:
        await select_one(database)
        private_postgres.kill()
        for _ in range(2):  # a dead connection in the pool, and one that cannot be opened
            with pytest.raises(Unavailable):
                await select_one(database)
        with pytest.raises(OSError):  # noqa: PT011 -- the text depends on the operating system
            await database.ping()
        private_postgres.restart()
        await select_one(database)
        await database.ping()


async def test_a_server_without_a_free_connection_is_unavailable(
    database_url: str, postgres_server: PostgresServer
) -> None:
    """A server that accepts no further connection causes `Unavailable`."""
    role = f"narrow_{uuid4().hex}"
    postgres_server.execute(f"create role {role} login password 'narrow' connection limit 1")
    url = make_url(database_url).set(username=role, password="narrow").render_as_string(hide_password=False)
    try:
        async with build_database(settings(url)) as database, database.engine.connect():
            with pytest.raises(Unavailable):
                await select_one(database)
    finally:
        postgres_server.execute(f"drop role {role}")


async def test_a_connection_lost_within_the_block_is_unavailable(database: Database) -> None:
    """If the server closes the connection between two statements, the block raises `Unavailable`."""

    async def lose_connection() -> None:
        async with unit_of_work(database) as work:
            pid = await work.session.scalar(text("select pg_backend_pid()"))
            async with database.engine.connect() as other:
                await other.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
            await work.session.execute(text("select 1"))

    with pytest.raises(Unavailable):
        await lose_connection()
    await select_one(database)


async def test_a_statement_over_its_time_is_unavailable(database_url: str) -> None:
    """A statement over the statement timeout raises `Unavailable`, and its connection can be used again."""
    async with build_database(settings(database_url, statement_timeout=0.2)) as database:
        with pytest.raises(Unavailable):
            await execute(database, "select pg_sleep(60)")
        await select_one(database)


async def test_a_server_that_refuses_the_password_is_unavailable(database_url: str) -> None:
    """A refused role or password raises `Unavailable`, because it is a fault of the configuration."""
    url = make_url(database_url).set(password="wrong").render_as_string(hide_password=False)
    async with build_database(settings(url)) as database:
        with pytest.raises(Unavailable):
            await select_one(database)


async def test_a_frozen_server_delays_callers_by_one_ping_and_connect(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen server costs a caller one ping and one connection attempt, whatever the statement timeout.

    The connection counts as rested; one that was just used is as a running statement.
    """
    monkeypatch.setattr("tequipy_platform.database.engine._FRESH_SECONDS", 0)
    monkeypatch.setattr("tequipy_platform.database.engine.SETTLE_SECONDS", 0.5)
    changes = {"statement_timeout": 600, "connect_timeout": 1, "pool_size": 1, "max_overflow": 0}
    async with build_database(settings(private_postgres.url("postgres"), **changes)) as database:
        await select_one(database)
        private_postgres.freeze()
        try:
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable):
                    await select_one(database)
        finally:
            private_postgres.thaw()
        await select_one(database)
        private_postgres.freeze()
        closing = asyncio.ensure_future(database.__aexit__(None, None, None))
        try:
            assert (await asyncio.wait({closing}, timeout=60))[0], "the pool is not closed while the server hangs"
            await closing
            assert all(connection.is_closed() for connection in database._opened)
        finally:
            private_postgres.thaw()


async def test_a_frozen_server_keeps_no_connection_busy(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen at a statement, at the commit, or during a cancellation: each block ends and returns its connection."""
    for module in ("engine", "transaction"):
        monkeypatch.setattr(f"tequipy_platform.database.{module}.SETTLE_SECONDS", 0.5)
    changes = {"statement_timeout": 0.5, "pool_size": 1, "max_overflow": 0}
    async with build_database(settings(private_postgres.url("postgres"), **changes)) as database:
        for freeze_at in ("statement", "commit", "cancelled"):
            caller = asyncio.create_task(freeze_within(database, private_postgres, commit=freeze_at == "commit"))
            try:
                await asyncio.wait({caller}, timeout=0.5)
                if freeze_at == "cancelled":
                    caller.cancel()
                await asyncio.wait({caller}, timeout=60)
                with pytest.raises(asyncio.CancelledError if freeze_at == "cancelled" else Unavailable):
                    caller.result()
                assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # -- the pool is a QueuePool
            finally:
                private_postgres.thaw()
            await select_one(database)


async def freeze_within(database: Database, server: PostgresServer, *, commit: bool) -> None:
    """Freeze the server during a unit of work: before its commit, or before its last statement."""
    async with unit_of_work(database) as work:
        await work.session.execute(text("select 1"))
        server.freeze()
        if not commit:
            await work.session.execute(text("select 2"))


async def test_a_server_slower_than_the_ping_is_used(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no pooled connection answers the ping in time, a new one is used, however slow the server is."""
    monkeypatch.setattr("tequipy_platform.database.engine._PING_SECONDS", 0)
    monkeypatch.setattr("tequipy_platform.database.engine._FRESH_SECONDS", 0)
    for _ in range(3):
        await select_one(database)


async def backend(database: Database) -> int:
    """Return the server process that a unit of work uses."""
    async with unit_of_work(database) as work:
        pid: int = (await work.session.execute(text("select pg_backend_pid()"))).scalar_one()
    return pid


async def test_only_a_connection_that_rested_is_tested(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was just used is not tested: a ping that nothing passes replaces it only after a rest."""
    monkeypatch.setattr("tequipy_platform.database.engine._PING_SECONDS", 0)
    monkeypatch.setattr("tequipy_platform.database.engine._FRESH_SECONDS", 3600)
    first = await backend(database)
    assert await backend(database) == first
    monkeypatch.setattr("tequipy_platform.database.engine._FRESH_SECONDS", 0)
    assert await backend(database) != first


async def test_a_closed_connection_is_replaced_although_it_was_just_used(
    database: Database, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that the server has closed is never used, however short its rest was."""
    monkeypatch.setattr("tequipy_platform.database.engine._FRESH_SECONDS", 3600)
    first = await backend(database)
    postgres_server.execute(f"select pg_terminate_backend({first})")
    async with asyncio.timeout(30):
        while not all(connection.is_closed() for connection in database._opened):
            await asyncio.sleep(0)
    assert await backend(database) != first


@pytest.mark.parametrize("connected", [False, True])
async def test_ping_can_be_abandoned_on_a_server_that_hangs(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    """A ping of a server that froze before or after the connection was made can be cancelled at once."""
    execute = asyncpg.Connection.execute

    async def freeze_first(connection: object, statement: str) -> str:
        private_postgres.freeze()
        answer: str = await execute(connection, statement)
        return answer

    async with build_database(settings(private_postgres.url("postgres"))) as database:
        await database.ping()
        try:
            if connected:
                monkeypatch.setattr(asyncpg.Connection, "execute", freeze_first)
            else:
                private_postgres.freeze()
            ping = asyncio.create_task(database.ping())
            await asyncio.wait({ping}, timeout=0.3)
            ping.cancel()
            started = time.monotonic()
            await asyncio.wait({ping})
            assert ping.cancelled()
            assert time.monotonic() - started < 2
        finally:
            private_postgres.thaw()

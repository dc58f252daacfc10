"""The engine, its sessions and its pool, on a real PostgreSQL."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tequipy_platform import Unavailable
from tequipy_platform.database import Database, build_database

from .work import outbox_add, select_one, settings, unit_of_work


@pytest.mark.parametrize("query", ["foo=1", "sslmode=require", "ssl=hunter2", "ssl=require&ssl=disable"])
def test_a_url_has_no_option_that_the_driver_does_not_know(query: str) -> None:
    """An unknown URL option is refused with the settings and not quoted, instead of breaking the first connection."""
    with pytest.raises(ValidationError, match="URL may have no option but ssl: disable, allow, ") as error:
        settings(f"postgresql+asyncpg://localhost/none?{query}")
    assert "hunter2" not in str(error.value)


async def test_a_url_may_say_how_tls_is_used(database_url: str) -> None:
    """The option `ssl` is used by the pool and by connections outside of it."""
    async with build_database(settings(f"{database_url}?ssl=prefer")) as database:
        await select_one(database)
        await database.ping()


async def test_a_session_has_the_configured_parameters(database: Database) -> None:
    """Statement timeout, idle timeout and application name of a session are those of the settings."""
    async with database.engine.connect() as connection:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "application_name")
        values = [await connection.scalar(text(f"show {name}")) for name in names]
    assert values == ["30s", "1min", "tequipy"]


async def test_behind_a_pooler_settings_are_per_transaction(database_url: str) -> None:
    """With `pgbouncer`, timeouts are set per transaction, and no statement is prepared."""
    async with build_database(settings(database_url, direct_url=database_url, pgbouncer=True)) as database:
        await database.ping()
        async with database.engine.connect() as connection:
            assert await connection.scalar(text("show statement_timeout")) == "30s"
            driver = (await connection.get_raw_connection()).driver_connection
            await connection.commit()
            assert driver is not None
            assert await driver.fetchval("show statement_timeout") == "0"
            for _ in range(3):
                await connection.execute(text("select 1"))
            assert await connection.scalar(text("select count(*) from pg_prepared_statements")) <= 1


async def test_an_exhausted_pool_is_unavailable(database_url: str) -> None:
    """If all connections stay busy for the pool's timeout, the caller gets `Unavailable`."""
    async with build_database(settings(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)) as database:
        async with database.engine.connect():
            with pytest.raises(Unavailable) as error:
                await outbox_add(database)
        assert error.value.retry_after >= 1
        await outbox_add(database)


async def test_ping_needs_no_connection_of_the_pool(database_url: str) -> None:
    """An exhausted pool does not make the readiness check fail."""
    full = settings(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    async with build_database(full) as database, database.engine.connect():
        await database.ping()


async def test_a_direct_connection_is_notified_of_the_outbox(database: Database) -> None:
    """A committed statement on the outbox notifies listeners once; a rolled-back one does not."""
    notified: asyncio.Queue[str] = asyncio.Queue()
    async with database.direct_connection() as connection:
        await connection.add_listener("tequipy_outbox", lambda *_: notified.put_nowait("notified"))
        async with unit_of_work(database) as work:
            work.outbox.add("test.do")
            work.outbox.add("test.do")
        assert await asyncio.wait_for(notified.get(), 10) == "notified"
    assert notified.empty()


async def test_the_pool_is_measured(database_url: str) -> None:
    """`db_pool_*` show used and idle connections, and a scrape before the first use opens none."""
    registry = CollectorRegistry()
    async with build_database(settings(database_url, pool_size=1), registry=registry) as database:
        assert registry.get_sample_value("db_pool_in_use") == 0
        assert "engine" not in database.__dict__
        assert registry.get_sample_value("db_pool_limit") == 11
        async with database.engine.connect() as first, database.engine.connect() as second:
            await first.execute(text("select 1"))
            await second.execute(text("select 1"))
            assert registry.get_sample_value("db_pool_in_use") == 2
            assert registry.get_sample_value("db_pool_overflow") == 1
        assert registry.get_sample_value("db_pool_in_use") == 0
        assert registry.get_sample_value("db_pool_idle") == 1


async def test_errors_hide_parameters(database: Database) -> None:
    """Database errors do not quote the parameters of the statement."""

    async def fail() -> None:
        async with unit_of_work(database) as work:
            await work.session.execute(text("select 1 / 0 where :secret <> ''"), {"secret": "hunter2"})

    with pytest.raises(DBAPIError, match="division by zero") as error:
        await fail()
    assert "hunter2" not in str(error.value)

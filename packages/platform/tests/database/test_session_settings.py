"""Session settings do not depend on the defaults of the server, the database or the role."""

import asyncio
import io
from collections.abc import Iterator
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.database.encoding import WrongEncoding
from tequipy_platform.database.migrations import MigrationFailed, build_schema_check, migrate
from tequipy_platform.messaging.migrations import HISTORY

NAMES = ("transaction_isolation", "TimeZone", "statement_timeout", "idle_in_transaction_session_timeout")
OURS = {
    "transaction_isolation": "read committed",
    "TimeZone": "UTC",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "1min",
}


def name_of(url: str) -> str:
    return make_url(url).database or ""


@pytest.fixture
def odd_database_url(postgres_server: PostgresServer, empty_database_url: str) -> str:
    """Return a database whose defaults an operator has changed."""
    for setting in ("default_transaction_isolation = serializable", "TimeZone = 'Asia/Tokyo'", "statement_timeout = 0"):
        postgres_server.execute(f'alter database "{name_of(empty_database_url)}" set {setting}')
    return empty_database_url


@pytest.mark.parametrize("pgbouncer", [False, True])
async def test_every_session_is_the_same_everywhere(odd_database_url: str, pgbouncer: bool) -> None:
    """Each transaction is READ COMMITTED, in UTC and with timeouts, even if a pooler drops start-up parameters."""
    url = SecretStr(odd_database_url)
    async with build_database(DatabaseSettings(url=url, direct_url=url, pgbouncer=pgbouncer)) as database:
        # The second round uses the same connection.
        for factory in [database.sessions, database.autocommit_sessions] * 2:
            async with factory() as session:
                assert {name: await session.scalar(text(f"show {name}")) for name in NAMES} == OURS
        async with database.direct_connection() as connection:
            assert {name: await connection.fetchval(f"show {name}") for name in NAMES} == OURS
        if not pgbouncer:
            async with database.own_connection() as connection:
                assert {name: await connection.fetchval(f"show {name}") for name in NAMES} == OURS


async def test_a_pooled_connection_keeps_nothing_of_a_transaction(odd_database_url: str) -> None:
    """Behind a pooler, a transaction leaves the server connection's settings unchanged for the next client."""
    url = SecretStr(odd_database_url)
    async with build_database(DatabaseSettings(url=url, direct_url=url, pgbouncer=True)) as database:
        async with database.sessions() as session:
            await session.execute(text("select 1"))
            await session.commit()
            raw = await (await session.connection()).get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
        assert await driver.fetchval("show TimeZone") == "Asia/Tokyo"


def test_a_migration_is_the_same_everywhere(odd_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration's transaction is READ COMMITTED, in UTC, and ends if its client does nothing more.

    It has no statement timeout, because a statement may have to read a large table.
    """
    seen: dict[str, str | None] = {}
    monkeypatch.setattr(
        "tequipy_platform.database.migrations.runner._schema_exists",
        lambda connection, _: bool(seen.update((name, connection.scalar(text(f"show {name}"))) for name in NAMES)),
    )
    migrate(odd_database_url, [HISTORY], "current", output=io.StringIO())
    assert seen == OURS | {"statement_timeout": "0"}


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def wrong_database_url(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"wrong_{uuid4().hex}"
    options = f"ENCODING '{request.param}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    postgres_server.execute(f"CREATE DATABASE {name} {options}")
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def test_another_encoding_is_refused(wrong_database_url: str, postgres_server: PostgresServer) -> None:
    """Readiness and migrations refuse a database that cannot store every text, and create nothing in it."""
    with pytest.raises(MigrationFailed, match=r"encoding is (LATIN1|SQL_ASCII)"):
        migrate(wrong_database_url, [HISTORY])
    schema = "select 1 from pg_namespace where nspname = 'platform'"
    assert postgres_server.execute(schema, name_of(wrong_database_url)) == ""

    async def check() -> None:
        async with build_database(DatabaseSettings(url=SecretStr(wrong_database_url))) as database:
            with pytest.raises(WrongEncoding, match="ENCODING 'UTF8'"):
                await database.ping()
            with pytest.raises(WrongEncoding):
                await build_schema_check(database, [HISTORY])()

    asyncio.run(check())

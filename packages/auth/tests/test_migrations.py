"""The migration history of auth's schema."""

import asyncio
from io import StringIO

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tequipy_auth.migrations import HISTORY
from tequipy_platform.database import DatabaseSettings
from tequipy_platform.database.migrations import MigrationFailed, migrate
from tequipy_platform.messaging.migrations import HISTORY as PLATFORM


def run(url: str, *statements: str) -> None:
    async def execute() -> None:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(execute())


def tables(url: str, schema: str = "auth") -> set[str]:
    async def read() -> set[str]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            query = text("select tablename from pg_tables where schemaname = :schema")
            found = set(await connection.scalars(query, {"schema": schema}))
        await engine.dispose()
        return found

    return asyncio.run(read())


def test_upgrade_and_downgrade_match_the_models(empty_database_url: str) -> None:
    """The upgrade creates the tables of the models; the downgrade leaves nothing; a second upgrade works."""
    for _ in range(2):
        migrate(empty_database_url, [HISTORY], "upgrade head", output=StringIO())
        migrate(empty_database_url, [HISTORY], "check", output=StringIO())
        models = {table.name for table in HISTORY.metadata.sorted_tables}
        assert tables(empty_database_url) == {*models, "alembic_version"}
        migrate(empty_database_url, [HISTORY], "downgrade base", output=StringIO())
        assert tables(empty_database_url) == {"alembic_version"}


FOREIGN = (
    "create schema auth",
    "create table auth.users (theirs int)",
    "create table auth.schema_migrations (version text)",
)


def test_a_foreign_auth_schema_is_refused_before_any_change(empty_database_url: str) -> None:
    """If a foreign schema `auth` exists, no schema is changed, also not that of an earlier history."""
    run(empty_database_url, *FOREIGN)
    with pytest.raises(MigrationFailed, match="schema auth belongs to another product"):
        migrate(empty_database_url, [PLATFORM, HISTORY])
    assert tables(empty_database_url, "platform") == set()
    assert tables(empty_database_url) == {"users", "schema_migrations"}


def test_a_renamed_schema_leaves_a_foreign_one_unchanged(empty_database_url: str) -> None:
    """Under another name every revision can be upgraded and downgraded beside a foreign schema `auth`."""
    run(empty_database_url, *FOREIGN)
    renamed = DatabaseSettings(url=SecretStr(empty_database_url), schemas={"auth": "shop_auth"})
    models = {table.name for table in HISTORY.metadata.sorted_tables}
    for _ in range(2):
        migrate(renamed, [HISTORY], "upgrade head", output=StringIO())
        migrate(renamed, [HISTORY], "check", output=StringIO())
        assert tables(empty_database_url, "shop_auth") == {*models, "alembic_version"}
        migrate(renamed, [HISTORY], "downgrade base", output=StringIO())
        assert tables(empty_database_url, "shop_auth") == {"alembic_version"}
    assert tables(empty_database_url) == {"users", "schema_migrations"}


def test_signing_keys_survive_the_migration_to_versions(empty_database_url: str) -> None:
    """Earlier keys keep their private key without a version; revoked ones lose it."""
    migrate(empty_database_url, [HISTORY], "upgrade 0010", output=StringIO())
    run(
        empty_database_url,
        "insert into auth.signing_keys (kid, algorithm, state, public_jwk, private_key, created_at, state_changed_at)"
        " select state, 'ES256', state, '{}', 'old', now(), now() from unnest(array['active', 'revoked']) state",
    )
    migrate(empty_database_url, [HISTORY], "upgrade 0011", output=StringIO())

    async def read() -> list[tuple[str, bytes, int | None]]:
        engine = create_async_engine(empty_database_url)
        async with engine.connect() as connection:
            query = text("select kid, private_key, encryption_version from auth.signing_keys order by kid")
            rows = [(row.kid, row.private_key, row.encryption_version) for row in await connection.execute(query)]
        await engine.dispose()
        return rows

    assert asyncio.run(read()) == [("active", b"old", None), ("revoked", b"", None)]

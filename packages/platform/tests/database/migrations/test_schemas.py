"""Migrations with restricted roles, renamed schemas, and schemas of other products."""

import asyncio
import io
from collections.abc import Iterator
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import DatabaseSettings
from tequipy_platform.database.migrations import MigrationFailed, migrate
from tequipy_platform.messaging.migrations import HISTORY

RELATIONS = "select nspname || '.' || relname from pg_class c join pg_namespace n on n.oid = relnamespace order by 1"
SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' order by 1"


class Role:
    """A role that may log in to one database and has no further rights."""

    def __init__(self, server: PostgresServer, database_url: str) -> None:
        self.name = f"role_{uuid4().hex}"
        self.url = make_url(database_url).set(username=self.name, password="x").render_as_string(hide_password=False)
        self.superuser_url = database_url
        self._server = server
        self._database = make_url(database_url).database or ""
        self.run(f"create role {self.name} login password 'x'")

    def run(self, sql: str) -> list[str]:
        """Run a statement as the superuser in the role's database."""
        return self._server.execute(sql, self._database).splitlines()


@pytest.fixture
def role(postgres_server: PostgresServer, empty_database_url: str) -> Iterator[Role]:
    role = Role(postgres_server, empty_database_url)
    yield role
    role.run(f"drop owned by {role.name}")
    role.run(f"drop role {role.name}")


def test_a_role_that_cannot_create_schemas_migrates_those_that_a_dba_made(role: Role) -> None:
    """With only USAGE and CREATE in an existing schema, every command works."""
    role.run("create schema platform")
    role.run(f"grant usage, create on schema platform to {role.name}")
    output = io.StringIO()
    for command in ("upgrade", "check", "current", "downgrade base", "upgrade"):
        migrate(role.url, [HISTORY], command, output=output)
    assert "(head)" in output.getvalue()


def test_the_error_of_a_missing_right_contains_the_statement(role: Role) -> None:
    """The error message holds the statement that a DBA has to run."""
    with pytest.raises(MigrationFailed, match=f'CREATE SCHEMA "platform" AUTHORIZATION "{role.name}"'):
        migrate(role.url, [HISTORY])


def test_check_and_current_write_nothing(role: Role) -> None:
    """`check` and `current` leave an empty database empty, and work for a role with read-only transactions."""
    before = role.run(RELATIONS), role.run(SCHEMAS)
    with pytest.raises(MigrationFailed, match="not up to date"):
        migrate(role.url, [HISTORY], "check")
    migrate(role.url, [HISTORY], "current", output=io.StringIO())
    assert (role.run(RELATIONS), role.run(SCHEMAS)) == before
    migrate(role.superuser_url, [HISTORY])
    role.run(f"alter role {role.name} set default_transaction_read_only = on")
    role.run(f"grant usage on schema platform to {role.name}")
    role.run(f"grant select on platform.alembic_version to {role.name}")
    output = io.StringIO()
    for command in ("check", "current", "history"):
        migrate(role.url, [HISTORY], command, output=output)
    assert "(head)" in output.getvalue()


def test_commands_that_only_read_do_not_wait_for_a_migration(empty_database_url: str) -> None:
    """`current` works while another process holds the migration lock."""

    async def hold_and_ask() -> None:
        connection = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
        try:
            await connection.execute("select pg_advisory_lock(hashtextextended('tequipy.migrations', 0))")
            asking = asyncio.to_thread(migrate, empty_database_url, [HISTORY], "current", output=io.StringIO())
            await asyncio.wait_for(asking, 20)
        finally:
            connection.terminate()  # releases a waiting command, so that the thread ends

    asyncio.run(hold_and_ask())


FOREIGN = [
    ["create table platform.users (id int)"],
    ["create table platform.outbox (id int)", "create table platform.schema_migrations (id int)"],
    [
        "create table platform.outbox (id int)",
        "create table platform.alembic_version as select 'ae1027a6acf0' version_num",
    ],
    ["create view platform.things as select 1"],
    ["create function platform.uid() returns int language sql as 'select 1'"],
]


@pytest.mark.parametrize("command", ["upgrade", "check", "current", "downgrade base"])
@pytest.mark.parametrize("statements", FOREIGN, ids=["tables", "same-table", "alembic", "view", "function"])
def test_another_products_schema_is_refused_by_name(role: Role, statements: list[str], command: str) -> None:
    """A schema with foreign tables is refused, and no schema is changed."""
    role.run("create schema platform")
    for statement in statements:
        role.run(statement)
    before = role.run(RELATIONS), role.run(SCHEMAS)
    url = role.superuser_url
    with pytest.raises(MigrationFailed, match=r"schema platform belongs to another product .*the setting schemas"):
        migrate(url, [HISTORY], command)
    assert (role.run(RELATIONS), role.run(SCHEMAS)) == before


def test_a_renamed_schema_is_migrated_beside_a_foreign_one(role: Role) -> None:
    """With a renamed schema, all commands work there, and the other product's schema stays unchanged."""
    role.run("create schema platform")
    role.run("create table platform.outbox (theirs int)")
    theirs = "select * from pg_class where relnamespace = 'platform'::regnamespace"
    before = role.run(theirs)
    renamed = DatabaseSettings(url=SecretStr(role.superuser_url), schemas={"platform": "order"})  # a reserved word
    output = io.StringIO()
    for command in ("upgrade", "check", "downgrade base", "upgrade", "check", "--schema order current"):
        migrate(renamed, [HISTORY], command, output=output)
    assert "(head)" in output.getvalue()
    assert role.run(theirs) == before
    assert "order.outbox" in role.run(RELATIONS)

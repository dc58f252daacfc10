"""Migrations on a real PostgreSQL: histories, lock, drift."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest
from pydantic import SecretStr
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text

from tequipy_devstack.servers import PostgresServer
from tequipy_platform.migrations import HISTORY, History, MigrationFailed, SchemaBehind, build_schema_check, migrate
from tequipy_platform.wiring import DatabaseSettings, build_database

Query = Callable[[str], list[object]]


@pytest.fixture
def query(empty_database_url: str) -> Query:
    """Run a statement and return the first column."""

    async def run(statement: str) -> list[object]:
        connection = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
        try:
            return [row[0] for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return lambda statement: asyncio.run(run(statement))


HEAD = "0005"
TABLES = "select schemaname || '.' || tablename from pg_tables where schemaname in ('platform', 'shop') order by 1"
FUNCTIONS = "select proname from pg_proc join pg_namespace n on n.oid = pronamespace where nspname = 'platform'"


def test_up_down_up(empty_database_url: str, query: Query) -> None:
    """Upgrade makes every table in the schema, downgrade leaves nothing but the empty history, upgrade works again."""
    tables = ["platform.alembic_version", "platform.inbox", "platform.outbox"]
    migrate(empty_database_url, [HISTORY])
    assert query(TABLES) == tables
    migrate(empty_database_url, [HISTORY], "downgrade base")
    assert query(TABLES) == ["platform.alembic_version"]
    assert query(FUNCTIONS) == []
    migrate(empty_database_url, [HISTORY], "upgrade head")
    assert query(TABLES) == tables
    migrate(empty_database_url, [HISTORY], "check")


def test_two_upgrades_at_once_apply_each_revision_once(empty_database_url: str, query: Query) -> None:
    """Two processes on an empty database: both succeed, one of them has nothing left to do."""
    program = "import sys; from tequipy_platform.migrations import *; migrate(sys.argv[1], [HISTORY])"
    running = [subprocess.Popen([sys.executable, "-c", program, empty_database_url]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert query("select version_num from platform.alembic_version") == [HEAD]


def drifted(change: Callable[[MetaData], object]) -> History:
    metadata = MetaData(schema="platform")
    for table in HISTORY.metadata.sorted_tables:
        table.to_metadata(metadata)
    change(metadata)
    return History("platform", HISTORY.location, metadata)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: Table("new", metadata, Column("id", Integer, primary_key=True)),
        lambda metadata: metadata.remove(metadata.tables["platform.inbox"]),
        lambda metadata: metadata.tables["platform.inbox"].append_column(Column("extra", Text)),
        lambda metadata: Index("ix_new", metadata.tables["platform.inbox"].c.state),
        lambda metadata: setattr(metadata.tables["platform.inbox"].c.state, "type", Integer()),
        lambda metadata: setattr(metadata.tables["platform.inbox"].c.state, "nullable", True),
    ],
)
def test_check_finds_drift(empty_database_url: str, change: Callable[[MetaData], object]) -> None:
    """A model that no revision leads to makes `check` fail: table, column, index, type or nullability."""
    migrate(empty_database_url, [HISTORY])
    with pytest.raises(MigrationFailed, match="upgrade operations"):
        migrate(empty_database_url, [drifted(change)], "check")


def test_check_fails_while_the_database_is_behind(empty_database_url: str) -> None:
    """A database that was never upgraded does not pass."""
    with pytest.raises(MigrationFailed, match="not up to date"):
        migrate(empty_database_url, [HISTORY], "check")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """Another package with a history of its own, still without revisions."""
    versions = tmp_path / "example_shop" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "example_shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "example_shop", raising=False)  # another test's, in another folder
    metadata = MetaData(schema="shop")
    Table("orders", metadata, Column("id", Integer, primary_key=True), Column("note", Text))
    return History("shop", "example_shop:migrations", metadata)


def test_a_revision_is_written_and_applied(
    empty_database_url: str, query: Query, shop: History, tmp_path: Path
) -> None:
    """`revision --autogenerate` writes the next revision into the package, numbered, and it leads to the models."""
    both = [HISTORY, shop]
    migrate(empty_database_url, both)
    migrate(empty_database_url, both, '--schema shop revision --autogenerate -m "Take orders"', output=io.StringIO())
    (file,) = (tmp_path / "example_shop" / "migrations" / "versions").glob("*.py")
    assert file.name == "0001_take_orders.py"
    assert "outbox" not in file.read_text()
    assert "'shop" not in file.read_text()  # the schema may have another name elsewhere
    renamed = DatabaseSettings(url=SecretStr(empty_database_url), schemas={"shop": "other_shop"})
    migrate(renamed, both)
    migrate(renamed, both, "check", output=io.StringIO())
    migrate(empty_database_url, both)
    migrate(empty_database_url, both, "check", output=io.StringIO())
    assert "shop.orders" in query(TABLES)
    assert query("select version_num from shop.alembic_version") == ["0001"]


def test_each_history_is_told_and_can_be_chosen(empty_database_url: str, query: Query, shop: History) -> None:
    """`current` and `history` print what they find; `--schema` keeps a command to one history."""
    migrate(empty_database_url, [HISTORY, shop], ["--schema", "platform", "upgrade"])
    assert "shop.alembic_version" not in query(TABLES)
    output = io.StringIO()
    migrate(empty_database_url, [HISTORY], "current", output=output)
    assert f"{HEAD} (head)" in output.getvalue()
    migrate(empty_database_url, [HISTORY], "history", output=output)
    assert "Outbox" in output.getvalue()


@pytest.mark.parametrize("command", ["revision -m x", "--schema nowhere upgrade"])
def test_a_command_that_fits_no_single_history_is_refused(empty_database_url: str, shop: History, command: str) -> None:
    """A new revision belongs to one schema, and an unknown schema is told the known ones."""
    with pytest.raises(MigrationFailed, match="--schema platform, --schema shop"):
        migrate(empty_database_url, [HISTORY, shop], command)


def test_a_command_that_is_none_ends_like_any_command_line(empty_database_url: str) -> None:
    """A typo prints the usage and exits with 2."""
    with pytest.raises(SystemExit) as exit_:
        migrate(empty_database_url, [HISTORY], "upgarde head")
    assert exit_.value.code == 2


def test_a_migration_that_fails_leaves_the_ones_before(
    empty_database_url: str, query: Query, shop: History, tmp_path: Path
) -> None:
    """Each revision has its own transaction: what went before a failure stays, the failed one is undone whole."""
    folder = tmp_path / "example_shop" / "migrations" / "versions"
    head = 'import sqlalchemy as sa\nfrom alembic import op\nrevision = "{}"\ndown_revision = {}\n\n\ndef upgrade():\n'
    create = '    op.create_table("{}", sa.Column("id", sa.Integer()), schema="shop")\n'
    (folder / "0001_a.py").write_text(head.format("0001", None) + create.format("a"))
    (folder / "0002_b.py").write_text(head.format("0002", '"0001"') + create.format("b") + "    1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        migrate(empty_database_url, [shop])
    assert query(TABLES) == ["shop.a", "shop.alembic_version"]


def test_histories_are_taken_down_in_reverse(
    empty_database_url: str, query: Query, shop: History, tmp_path: Path
) -> None:
    """What was built last goes first: when it cannot go, what it stands on stays."""
    (tmp_path / "example_shop" / "migrations" / "versions" / "0001_stay.py").write_text(
        'revision = "0001"\ndown_revision = None\n\n\n'
        "def upgrade():\n    pass\n\n\ndef downgrade():\n    raise LookupError\n"
    )
    migrate(empty_database_url, [HISTORY, shop])
    with pytest.raises(LookupError):
        migrate(empty_database_url, [HISTORY, shop], "downgrade base")
    assert "platform.outbox" in query(TABLES)


def test_a_busy_table_fails_the_migration_and_not_the_service(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that waits for a table's lock gives up after the lock time-out."""
    monkeypatch.setattr("tequipy_platform.migrations.LOCK_TIMEOUT_SECONDS", 0.2)
    migrate(empty_database_url, [HISTORY])

    async def hold_and_downgrade() -> None:
        connection = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
        try:
            async with connection.transaction():
                await connection.execute("lock table platform.inbox in access share mode")
                await asyncio.to_thread(migrate, empty_database_url, [HISTORY], "downgrade base")
        finally:
            await connection.close()

    with pytest.raises(MigrationFailed, match="lock timeout"):
        asyncio.run(hold_and_downgrade())


def test_a_server_that_hangs_is_not_waited_for(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts connections and says nothing is one that cannot be reached, and is told so."""
    monkeypatch.setattr("tequipy_platform.migrations.CONNECT_SECONDS", 0.5)
    private_postgres.freeze()
    try:
        with pytest.raises(MigrationFailed, match="cannot be reached: no answer"):
            migrate(private_postgres.url(), [HISTORY])
    finally:
        private_postgres.thaw()


def test_the_schema_check_fails_while_the_database_is_behind(
    empty_database_url: str, shop: History, tmp_path: Path
) -> None:
    """Red on a database without tables and on one that lacks a revision; green at the head, and ahead of the code."""
    versions = tmp_path / "example_shop" / "migrations" / "versions"
    revision = 'revision = "{}"\ndown_revision = {}\n\n\ndef upgrade():\n    pass\n\n\ndef downgrade():\n    pass\n'
    (versions / "0001_open.py").write_text(revision.format("0001", None))
    histories = [HISTORY, shop]

    async def check() -> None:
        async with build_database(DatabaseSettings(url=SecretStr(empty_database_url))) as database:
            await build_schema_check(database, histories)()

    with pytest.raises(SchemaBehind, match="platform is at no revision"):
        asyncio.run(check())
    migrate(empty_database_url, histories)
    asyncio.run(check())
    (versions / "0002_close.py").write_text(revision.format("0002", '"0001"'))
    with pytest.raises(SchemaBehind, match="shop is at 0001"):
        asyncio.run(check())
    migrate(empty_database_url, histories)
    (versions / "0002_close.py").unlink()
    asyncio.run(check())

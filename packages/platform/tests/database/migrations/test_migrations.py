"""Migrations on a real PostgreSQL: histories, the lock, and differences between models and schema."""

import asyncio
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest
from pydantic import SecretStr
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text

from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.database.migrations import History, MigrationFailed, SchemaBehind, build_schema_check, migrate
from tequipy_platform.messaging.migrations import HISTORY

Query = Callable[[str], list[object]]


@pytest.fixture
def query(empty_database_url: str) -> Query:
    """Return a function that runs a statement and returns its first column."""

    async def run(statement: str) -> list[object]:
        connection = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
        try:
            return [row[0] for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return lambda statement: asyncio.run(run(statement))


HEAD = "0008"
TABLES = "select schemaname || '.' || tablename from pg_tables where schemaname in ('platform', 'shop') order by 1"
FUNCTIONS = "select proname from pg_proc join pg_namespace n on n.oid = pronamespace where nspname = 'platform'"


def test_up_down_up(empty_database_url: str, query: Query) -> None:
    """Upgrade creates every table, downgrade leaves only the empty version table, and upgrade works again."""
    tables = [
        "platform.alembic_version",
        "platform.attempts",
        "platform.idempotency_keys",
        "platform.inbox",
        "platform.outbox",
        "platform.schedules",
    ]
    migrate(empty_database_url, [HISTORY])
    assert query(TABLES) == tables
    migrate(empty_database_url, [HISTORY], "downgrade base")
    assert query(TABLES) == ["platform.alembic_version"]
    assert query(FUNCTIONS) == []
    migrate(empty_database_url, [HISTORY], "upgrade head")
    assert query(TABLES) == tables
    migrate(empty_database_url, [HISTORY], "check")


def test_the_trigger_notifies_before_revision_0007_only(empty_database_url: str, query: Query) -> None:
    """An insert notifies at revision 0006, also after a downgrade, and at the head it does not."""

    async def payloads() -> list[object]:
        received: list[object] = []
        connection = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
        try:
            await connection.add_listener("tequipy_outbox", lambda *arguments: received.append(arguments[-1]))
            await connection.execute(
                "insert into platform.outbox (id, task, payload, created_at) "
                "values (gen_random_uuid(), 'test.do', '{}', now())"
            )
            await connection.execute("select pg_notify('tequipy_outbox', 'end')")
            while "end" not in received:
                await connection.execute("select 1")
            return received[:-1]
        finally:
            await connection.close()

    migrate(empty_database_url, [HISTORY])
    for command, expected in (("downgrade 0006", ["platform"]), ("upgrade head", []), ("downgrade 0006", ["platform"])):
        migrate(empty_database_url, [HISTORY], command)
        assert asyncio.run(payloads()) == expected
        assert query(FUNCTIONS) == ["notify_outbox"] * len(expected)


def test_two_upgrades_at_once_apply_each_revision_once(empty_database_url: str, query: Query) -> None:
    """Two concurrent upgrades of an empty database both succeed, and one of them has nothing to do."""
    program = (
        "import sys; from tequipy_platform.database.migrations import migrate; "
        "from tequipy_platform.messaging.migrations import HISTORY; migrate(sys.argv[1], [HISTORY])"
    )
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
    """`check` fails for a model that no revision leads to: table, column, index, type or nullability."""
    migrate(empty_database_url, [HISTORY])
    with pytest.raises(MigrationFailed, match="upgrade operations"):
        migrate(empty_database_url, [drifted(change)], "check")


def test_check_fails_while_the_database_is_behind(empty_database_url: str) -> None:
    """`check` fails on a database that was never upgraded."""
    with pytest.raises(MigrationFailed, match="not up to date"):
        migrate(empty_database_url, [HISTORY], "check")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """Return the history of another package, without revisions."""
    versions = tmp_path / "example_shop" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "example_shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "example_shop", raising=False)  # another test created it in another folder
    metadata = MetaData(schema="shop")
    Table("orders", metadata, Column("id", Integer, primary_key=True), Column("note", Text))
    return History("shop", "example_shop:migrations", metadata)


def test_a_revision_is_written_and_applied(
    empty_database_url: str, query: Query, shop: History, tmp_path: Path
) -> None:
    """`revision --autogenerate` writes the next numbered revision into the package, and it leads to the models."""
    both = [HISTORY, shop]
    migrate(empty_database_url, both)
    migrate(empty_database_url, both, '--schema shop revision --autogenerate -m "Take orders"', output=io.StringIO())
    (file,) = (tmp_path / "example_shop" / "migrations" / "versions").glob("*.py")
    assert file.name == "0001_take_orders.py"
    assert "outbox" not in file.read_text()
    assert "'shop" not in file.read_text()  # an installation may rename the schema
    renamed = DatabaseSettings(url=SecretStr(empty_database_url), schemas={"shop": "other_shop"})
    migrate(renamed, both)
    migrate(renamed, both, "check", output=io.StringIO())
    migrate(empty_database_url, both)
    migrate(empty_database_url, both, "check", output=io.StringIO())
    assert "shop.orders" in query(TABLES)
    assert query("select version_num from shop.alembic_version") == ["0001"]


def test_each_history_is_printed_and_can_be_chosen(empty_database_url: str, query: Query, shop: History) -> None:
    """`current` and `history` print each history; `--schema` restricts a command to one."""
    migrate(empty_database_url, [HISTORY, shop], ["--schema", "platform", "upgrade"])
    assert "shop.alembic_version" not in query(TABLES)
    output = io.StringIO()
    migrate(empty_database_url, [HISTORY], "current", output=output)
    assert f"{HEAD} (head)" in output.getvalue()
    migrate(empty_database_url, [HISTORY], "history", output=output)
    assert "Create outbox" in output.getvalue()


def test_each_line_names_the_history_and_its_revisions(empty_database_url: str, shop: History) -> None:
    """`upgrade`, `downgrade` and `current` print the schema, the revision before and after, and the head."""
    lines: list[str] = []
    for command in ("current", "upgrade 0005", "current", "upgrade", "upgrade", "downgrade base"):
        output = io.StringIO()
        migrate(empty_database_url, [HISTORY], command, output=output)
        lines += output.getvalue().splitlines()
    assert lines == [
        f"platform: none (the head is {HEAD})",
        f"platform: none -> 0005 (the head is {HEAD})",
        f"platform: 0005 (the head is {HEAD})",
        f"platform: 0005 -> {HEAD} (head)",
        f"platform: {HEAD} (head)",
        f"platform: {HEAD} -> none (the head is {HEAD})",
    ]
    output = io.StringIO()
    for command in ("upgrade", "history"):
        migrate(empty_database_url, [HISTORY, shop], command, output=output)
    assert re.findall(r"^(\w+):", output.getvalue(), re.MULTILINE) == ["platform", "shop"] * 2


@pytest.mark.parametrize("command", ["revision -m x", "--schema nowhere upgrade"])
def test_a_command_that_fits_no_single_history_is_refused(empty_database_url: str, shop: History, command: str) -> None:
    """A new revision needs one schema, and an unknown schema is refused with a list of the known ones."""
    with pytest.raises(MigrationFailed, match="--schema platform, --schema shop"):
        migrate(empty_database_url, [HISTORY, shop], command)


def test_an_unknown_command_prints_the_usage(empty_database_url: str) -> None:
    """An unknown command prints the usage and exits with 2."""
    with pytest.raises(SystemExit) as exit_:
        migrate(empty_database_url, [HISTORY], "upgarde head")
    assert exit_.value.code == 2


def test_a_migration_that_fails_leaves_the_ones_before(
    empty_database_url: str, query: Query, shop: History, tmp_path: Path
) -> None:
    """Each revision has its own transaction: a failed one is rolled back, the earlier ones stay."""
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
    """Downgrade starts with the last history; if that fails, the histories that it depends on stay."""
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
    """A migration that waits for a table lock fails after the lock timeout."""
    monkeypatch.setattr("tequipy_platform.database.migrations.runner.LOCK_TIMEOUT_SECONDS", 0.2)
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


def test_a_hanging_server_is_reported_as_unreachable(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts connections but does not answer is reported as unreachable."""
    monkeypatch.setattr("tequipy_platform.database.migrations.runner.CONNECT_SECONDS", 0.5)
    private_postgres.freeze()
    try:
        with pytest.raises(MigrationFailed, match="cannot be reached: no answer"):
            migrate(private_postgres.url(), [HISTORY])
    finally:
        private_postgres.thaw()


def test_the_schema_check_fails_while_the_database_is_behind(
    empty_database_url: str, shop: History, tmp_path: Path
) -> None:
    """The check fails without tables and with a missing revision; it passes at the head and on a newer database."""
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

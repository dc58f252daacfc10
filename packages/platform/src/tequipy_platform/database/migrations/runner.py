"""Runs migration commands on the histories of all packages, under one lock."""

import argparse
import asyncio
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from alembic import command as alembic
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from pydantic import SecretStr
from sqlalchemy import Connection, NullPool, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateSchema

from tequipy_platform.database.connecting import SESSION, Connector, milliseconds
from tequipy_platform.database.encoding import WrongEncoding, check_encoding
from tequipy_platform.database.migrations.history import REVISION, VERSION_TABLE, History
from tequipy_platform.database.settings import DatabaseSettings

LOCK_TIMEOUT_SECONDS: Final[float] = 5
"""A migration that waits longer than this for a table lock fails, because all other queries would queue behind it."""

CONNECT_SECONDS: Final[float] = 10
"""The timeout for connecting to the server."""


class MigrationFailed(Exception):
    """A migration command failed; the message says why (differences found by `check`, a lock that was not granted).

    `setting` names the field of `DatabaseSettings` to change, or is None.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


_CONTENTS: Final = """
    select relname from pg_catalog.pg_class where relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        and relnamespace = (select oid from pg_catalog.pg_namespace where nspname = :schema)
    union select proname from pg_catalog.pg_proc
        where pronamespace = (select oid from pg_catalog.pg_namespace where nspname = :schema)
"""


def migrate(
    database: DatabaseSettings | str,
    histories: Sequence[History],
    command: str | Sequence[str] = "upgrade head",
    *,
    output: TextIO | None = None,
) -> None:
    """Run one command on each history, in order (`downgrade`: in reverse); writing commands hold the migration lock.

    Commands: `upgrade [REVISION]`, `downgrade REVISION`, `check`, `current`, `history`, and `revision -m MESSAGE
    [--autogenerate]`, which writes a file. `--schema NAME` restricts a command to one history; `revision` requires it
    when there are several. `database` may be a URL. It, or `direct_url`, must lead to PostgreSQL itself and not to a
    pooler, because the lock belongs to the session. An existing schema is not created, and a schema with tables of
    another product is refused before anything is changed. `check`, `current` and `history` write nothing.

    Synchronous: it runs its own event loop. Prints to `output` (default: standard output). Raises `MigrationFailed`,
    or `SystemExit` with status 2 for an unknown command.
    """
    arguments = _parse(shlex.split(command) if isinstance(command, str) else command)
    if isinstance(database, str):
        database = DatabaseSettings(url=SecretStr(database))
    histories = [history.renamed(database.schemas) for history in histories]
    chosen = [history for history in histories if arguments.schema in {None, history.schema}]
    if not chosen or (arguments.command == "revision" and len(chosen) > 1):
        raise MigrationFailed("name one schema: " + ", ".join(f"--schema {history.schema}" for history in histories))
    if arguments.command == "downgrade":
        chosen.reverse()
    try:
        asyncio.run(_run(database, chosen, arguments, output or sys.stdout))
    except (CommandError, WrongEncoding) as error:
        raise MigrationFailed(str(error)) from error
    except OSError as error:
        raise MigrationFailed(f"the database cannot be reached: {str(error) or 'no answer'}") from error
    except DBAPIError as error:
        raise MigrationFailed(str(error.orig)) from error


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="migrate")
    parser.add_argument("--schema")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    # Suppressed, because the subcommand's default would overwrite an option that stands before the subcommand.
    shared.add_argument("--schema", default=argparse.SUPPRESS)
    commands.add_parser("upgrade", parents=[shared]).add_argument("revision", nargs="?", default="head")
    commands.add_parser("downgrade", parents=[shared]).add_argument("revision")
    for name in ("check", "current", "history"):
        commands.add_parser(name, parents=[shared])
    revision = commands.add_parser("revision", parents=[shared])
    revision.add_argument("-m", "--message", required=True)
    revision.add_argument("--autogenerate", action="store_true")
    return parser.parse_args(words)


def alembic_config(history: History, output: TextIO) -> Config:
    """Return the configuration of Alembic for a history; its commands print to `output`."""
    config = Config(stdout=output)
    config.set_main_option("script_location", "tequipy_platform.database:migrations")
    config.set_main_option("version_locations", f"{history.location}/versions")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def _writes(arguments: argparse.Namespace) -> bool:
    return arguments.command in {"upgrade", "downgrade"}


async def _run(
    database: DatabaseSettings, histories: Sequence[History], arguments: argparse.Namespace, output: TextIO
) -> None:
    writes = _writes(arguments)
    # No statement timeout, because an index of a large table takes its time; but a frozen process must free its locks.
    idle_timeout = milliseconds(database.idle_in_transaction_timeout)
    server_settings = SESSION | {
        "application_name": "tequipy-migrate",
        "idle_in_transaction_session_timeout": idle_timeout,
    }
    if not writes:
        server_settings["default_transaction_read_only"] = "on"
    engine = create_async_engine(
        make_url((database.direct_url or database.url).get_secret_value()),
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={
            "async_creator_fn": Connector(database),
            "server_settings": server_settings,
            "timeout": CONNECT_SECONDS,
        },
    )
    if writes:
        # The lock needs its own connection, because it must outlive the transactions of the migrations.
        async with engine.connect() as lock:
            await lock.execute(text("select pg_advisory_lock(hashtextextended('tequipy.migrations', 0))"))
            await lock.commit()  # the session keeps the lock, and no transaction stays open
            await _run_histories(engine, histories, arguments, output)
    else:
        await _run_histories(engine, histories, arguments, output)
    await engine.dispose()


async def _run_histories(
    engine: AsyncEngine, histories: Sequence[History], arguments: argparse.Namespace, output: TextIO
) -> None:
    async with engine.connect() as connection:
        check_encoding((await connection.get_raw_connection()).driver_connection)
        missing = [history.schema for history in histories if not await connection.run_sync(_schema_exists, history)]
        if arguments.command == "upgrade":
            for schema in missing:
                await connection.run_sync(_create_schema, schema)
        await connection.commit()
    for history in histories:
        async with engine.connect() as connection:
            await connection.run_sync(_run_history, history, arguments, output)


def _schema_exists(connection: Connection, history: History) -> bool:
    """Return whether the schema exists; raises `MigrationFailed` when it holds tables of another product."""
    schema = {"schema": history.schema}
    found = set(connection.scalars(text(_CONTENTS), schema))
    others = found - {VERSION_TABLE}
    ours = others & {table.name for table in history.metadata.sorted_tables}
    if others and not (ours and VERSION_TABLE in found and _has_our_revision(connection, history.schema)):
        raise MigrationFailed(
            f"schema {history.schema} belongs to another product (it holds {', '.join(sorted(others)[:3])}):"
            " name another one in the setting schemas",
            setting="schemas",
        )
    return connection.scalar(text("select 1 from pg_catalog.pg_namespace where nspname = :schema"), schema) is not None


def _has_our_revision(connection: Connection, schema: str) -> bool:
    revisions = connection.scalars(text(f'select version_num from "{schema}".{VERSION_TABLE}'))  # noqa: S608 -- the settings' own names
    return any(REVISION.fullmatch(revision) for revision in revisions)


def _create_schema(connection: Connection, schema: str) -> None:
    try:
        connection.execute(CreateSchema(schema))
    except ProgrammingError as error:
        role = make_url(str(connection.engine.url)).username
        raise MigrationFailed(
            f'{error.orig}: have a privileged role run CREATE SCHEMA "{schema}" AUTHORIZATION "{role}"'
        ) from error


def _run_history(connection: Connection, history: History, arguments: argparse.Namespace, output: TextIO) -> None:
    connection.execute(text(f"set lock_timeout = '{milliseconds(LOCK_TIMEOUT_SECONDS)}ms'"))
    connection.commit()
    config = alembic_config(history, output)
    config.attributes.update(connection=connection, history=history, writes=_writes(arguments))
    run: dict[str, Any] = {
        "upgrade": lambda: alembic.upgrade(config, arguments.revision),
        "downgrade": lambda: alembic.downgrade(config, arguments.revision),
        "check": lambda: alembic.check(config),
        "current": lambda: None,
        "history": lambda: alembic.history(config),
        "revision": lambda: _write_revision(config, history.schema, arguments),
    }
    before = _revision(connection, history.schema)
    if arguments.command in {"check", "history"}:
        output.write(f"{history.schema}:\n")
    run[arguments.command]()
    if arguments.command in {"upgrade", "downgrade", "current"}:
        output.write(f"{history.schema}: {_change(config, before, _revision(connection, history.schema))}\n")


def _revision(connection: Connection, schema: str) -> str | None:
    """Return the revision of a history in the database, or None."""
    table = f'"{schema}".{VERSION_TABLE}'
    revision: str | None = None
    if connection.scalar(text("select to_regclass(:table) is not null"), {"table": table}):
        revision = connection.scalar(text(f"select version_num from {table}"))  # noqa: S608 -- as above
    connection.rollback()  # Alembic begins the transactions of the migrations itself
    return revision


def _change(config: Config, before: str | None, after: str | None) -> str:
    """Return the revision before and after a command, and how far it is from the head."""
    head = ScriptDirectory.from_config(config).get_current_head()
    place = "(head)" if after == head else f"(the head is {head})"
    moved = "" if before == after else f"{before or 'none'} -> "
    return f"{moved}{after or 'none'} {place}"


def _write_revision(config: Config, schema: str, arguments: argparse.Namespace) -> None:
    """Write the next revision, and replace the schema's name in Alembic's output by calls of `schema_name()`."""
    rev_id = _next_revision(config)
    script = alembic.revision(config, arguments.message, autogenerate=arguments.autogenerate, rev_id=rev_id)
    for written in script if isinstance(script, list) else [script]:
        if written is not None:
            file = Path(written.path)
            source = file.read_text(encoding="utf-8").replace(f"schema={schema!r}", "schema=schema_name()")
            file.write_text(re.sub(rf"'{schema}\.([^']+)'", r"f'{schema_name()}.\1'", source), encoding="utf-8")


def _next_revision(config: Config) -> str:
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    return f"{sum(1 for _ in revisions) + 1:04d}"

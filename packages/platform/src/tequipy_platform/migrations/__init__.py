"""Migrations: one Alembic environment for every package's schema and history, and whether they have been run."""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, TextIO

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
from alembic import command as alembic
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, NullPool, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateSchema

from tequipy_platform.infrastructure.database import Database
from tequipy_platform.infrastructure.models import Base

LOCK_TIMEOUT_SECONDS: Final[float] = 5
"""A migration that waits longer than this for a table fails, rather than have the whole service wait behind it."""

CONNECT_SECONDS: Final[float] = 10
"""How long a server may take to accept a connection."""


class MigrationFailed(Exception):
    """A command did not do what was asked; the message says why (the drift that `check` found, a lock held)."""


@dataclass(frozen=True, slots=True)
class History:
    """One package's schema, the linear history that leads to it and the models it must end at.

    `location` is package, colon and folder (`tequipy_auth:migrations`); the revisions lie in its `versions`.
    """

    schema: str
    location: str
    metadata: MetaData


HISTORY: Final = History("platform", "tequipy_platform:migrations", Base.metadata)
"""Platform's own: outbox and inbox."""


class SchemaBehind(Exception):
    """The database lacks what the code of this process needs; the message names the schema and its revision."""


def build_schema_check(database: Database, histories: Sequence[History]) -> Callable[[], Awaitable[None]]:
    """Return a check that the database answers and is not behind the histories, on a connection outside the pool.

    It raises `SchemaBehind`, or whatever the driver raises. A database ahead of the code passes: expanding comes before
    rolling, so each process meets it, and must not be taken out of service for it.
    """
    return partial(_check_schemas, database, [(history.schema, _Revisions(history)) for history in histories])


class _Revisions:
    """The revisions that the code knows, read from its files once."""

    def __init__(self, history: History) -> None:
        self._history = history

    @cached_property
    def outdated(self) -> frozenset[str]:
        """All but the last one."""
        scripts = ScriptDirectory.from_config(_config(self._history, sys.stdout))
        return frozenset(script.revision for script in scripts.walk_revisions()) - set(scripts.get_heads())


async def _check_schemas(database: Database, schemas: Sequence[tuple[str, _Revisions]]) -> None:
    # One transaction: behind a pooler it is what keeps statements on one server connection.
    async with database.own_connection() as connection, connection.transaction(readonly=True):
        for schema, revisions in schemas:
            try:
                revision = await connection.fetchval(f'select version_num from "{schema}".alembic_version')  # noqa: S608 -- the schema is the code's own
            except asyncpg.UndefinedTableError:
                revision = None
            if revision is None or revision in revisions.outdated:
                raise SchemaBehind(f"schema {schema} is at {revision or 'no revision'}: run migrate upgrade head")


def migrate(
    database_url: str,
    histories: Sequence[History],
    command: str | Sequence[str] = "upgrade head",
    *,
    output: TextIO | None = None,
) -> None:
    """Run one command on each history, in order (downgrade: in reverse), while holding the database's migration lock.

    Commands: `upgrade [REVISION]`, `downgrade REVISION`, `check`, `current`, `history`, and `revision -m MESSAGE
    [--autogenerate]`, which writes a file. `--schema NAME` restricts a command to one history; `revision` needs it when
    there are several. `database_url` must lead to PostgreSQL itself, not to a pooler: the lock is the session's.

    Synchronous: it runs its own event loop. Prints to `output` (standard output). Raises `MigrationFailed`, or
    `SystemExit` with status 2 for a command that is none.
    """
    arguments = _parse(shlex.split(command) if isinstance(command, str) else command)
    chosen = [history for history in histories if arguments.schema in {None, history.schema}]
    if not chosen or (arguments.command == "revision" and len(chosen) > 1):
        raise MigrationFailed("name one schema: " + ", ".join(f"--schema {history.schema}" for history in histories))
    if arguments.command == "downgrade":
        chosen.reverse()
    try:
        asyncio.run(_run(database_url, chosen, arguments, output or sys.stdout))
    except CommandError as error:
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
    # Suppressed, or the subcommand's default would overwrite what stands before it.
    shared.add_argument("--schema", default=argparse.SUPPRESS)
    commands.add_parser("upgrade", parents=[shared]).add_argument("revision", nargs="?", default="head")
    commands.add_parser("downgrade", parents=[shared]).add_argument("revision")
    for name in ("check", "current", "history"):
        commands.add_parser(name, parents=[shared])
    revision = commands.add_parser("revision", parents=[shared])
    revision.add_argument("-m", "--message", required=True)
    revision.add_argument("--autogenerate", action="store_true")
    return parser.parse_args(words)


async def _run(database_url: str, histories: Sequence[History], arguments: argparse.Namespace, output: TextIO) -> None:
    engine = create_async_engine(
        make_url(database_url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"server_settings": {"application_name": "tequipy-migrate"}, "timeout": CONNECT_SECONDS},
    )
    # The lock has its own connection: it must outlive the transactions of the migrations.
    async with engine.connect() as lock:
        await lock.execute(text("select pg_advisory_lock(hashtextextended('tequipy.migrations', 0))"))
        await lock.commit()  # keeps the session's lock and leaves no transaction idle
        for history in histories:
            async with engine.connect() as connection:
                await connection.run_sync(_run_history, history, arguments, output)
    await engine.dispose()


def _run_history(connection: Connection, history: History, arguments: argparse.Namespace, output: TextIO) -> None:
    connection.execute(text(f"set lock_timeout = '{round(LOCK_TIMEOUT_SECONDS * 1000)}ms'"))
    # Every command but `history` keeps its version table there.
    connection.execute(CreateSchema(history.schema, if_not_exists=True))
    connection.commit()
    config = _config(history, output)
    config.attributes.update(connection=connection, history=history)
    run: dict[str, Any] = {
        "upgrade": lambda: alembic.upgrade(config, arguments.revision),
        "downgrade": lambda: alembic.downgrade(config, arguments.revision),
        "check": lambda: alembic.check(config),
        "current": lambda: alembic.current(config),
        "history": lambda: alembic.history(config),
        "revision": lambda: alembic.revision(
            config, arguments.message, autogenerate=arguments.autogenerate, rev_id=_next_revision(config)
        ),
    }
    run[arguments.command]()


def _config(history: History, output: TextIO) -> Config:
    config = Config(stdout=output)
    config.set_main_option("script_location", "tequipy_platform:migrations")
    config.set_main_option("version_locations", f"{history.location}/versions")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def _next_revision(config: Config) -> str:
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    return f"{sum(1 for _ in revisions) + 1:04d}"

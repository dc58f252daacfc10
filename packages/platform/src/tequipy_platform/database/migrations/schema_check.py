"""The check that a database has all migrations."""

from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property, partial

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types

from tequipy_platform.database.encoding import check_encoding
from tequipy_platform.database.engine import Database
from tequipy_platform.database.migrations.history import REVISION, VERSION_TABLE, History


class SchemaBehind(Exception):
    """The database is older than the code; the message names the schema and its revision."""


def build_schema_check(database: Database, histories: Sequence[History]) -> Callable[[], Awaitable[None]]:
    """Return a check that the database answers and has all migrations, on a connection outside the pool.

    The check raises `SchemaBehind`, `WrongEncoding` or an error of the driver. A database that is newer than the code
    passes: a release migrates before it replaces the processes, and the old ones must stay in service until then.
    """
    chosen = [history.renamed(database.schemas) for history in histories]
    return partial(_check_schemas, database, [(history.schema, _Revisions(history)) for history in chosen])


class _Revisions:
    """The revisions of a history, read from its files once."""

    def __init__(self, history: History) -> None:
        self._history = history

    @cached_property
    def outdated(self) -> frozenset[str]:
        """All revisions but the last one."""
        return self._history.outdated_revisions()


async def _check_schemas(database: Database, schemas: Sequence[tuple[str, _Revisions]]) -> None:
    # Behind a pooler, only a transaction guarantees that all statements use the same server connection.
    async with database.own_connection() as connection, connection.transaction(readonly=True):
        check_encoding(connection)
        for schema, revisions in schemas:
            try:
                revision = await connection.fetchval(f'select version_num from "{schema}".{VERSION_TABLE}')  # noqa: S608 -- the schema is the code's own
            except asyncpg.UndefinedTableError:
                revision = None
            if revision is not None and not REVISION.fullmatch(revision):
                raise SchemaBehind(f"schema {schema} belongs to another product: it is at revision {revision}")
            if revision is None or revision in revisions.outdated:
                raise SchemaBehind(f"schema {schema} is at {revision or 'no revision'}: run migrate upgrade head")

"""The history of auth's schema."""

import asyncio
from io import StringIO

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tequipy_auth.migrations import HISTORY
from tequipy_platform.migrations import migrate


def tables(url: str) -> set[str]:
    async def read() -> set[str]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            names = await connection.scalars(text("select tablename from pg_tables where schemaname = 'auth'"))
            found = set(names)
        await engine.dispose()
        return found

    return asyncio.run(read())


def test_up_down_up_ends_at_the_models(empty_database_url: str) -> None:
    """The history leads to what the models say, can be undone without a trace, and leads there again."""
    for _ in range(2):
        migrate(empty_database_url, [HISTORY], "upgrade head", output=StringIO())
        migrate(empty_database_url, [HISTORY], "check", output=StringIO())
        models = {table.name for table in HISTORY.metadata.sorted_tables}
        assert tables(empty_database_url) == {*models, "alembic_version"}
        migrate(empty_database_url, [HISTORY], "downgrade base", output=StringIO())
        assert tables(empty_database_url) == {"alembic_version"}

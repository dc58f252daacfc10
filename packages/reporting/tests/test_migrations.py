"""The migration history of reporting's schema."""

import asyncio
from io import StringIO

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tequipy_platform.database import DatabaseSettings
from tequipy_platform.database.migrations import migrate
from tequipy_reporting.migrations import HISTORY


def tables(url: str, schema: str) -> set[str]:
    async def read() -> set[str]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            query = text("select tablename from pg_tables where schemaname = :schema")
            found = set(await connection.scalars(query, {"schema": schema}))
        await engine.dispose()
        return found

    return asyncio.run(read())


def test_upgrade_and_downgrade_match_the_models(empty_database_url: str) -> None:
    """Under another name too, the upgrade creates the models' tables, and the downgrade leaves nothing; twice."""
    models = {table.name for table in HISTORY.metadata.sorted_tables}
    for schemas in ({}, {"reporting": "shop_reporting"}):
        settings = DatabaseSettings(url=SecretStr(empty_database_url), schemas=schemas)
        schema = schemas.get("reporting", "reporting")
        for _ in range(2):
            migrate(settings, [HISTORY], "upgrade head", output=StringIO())
            migrate(settings, [HISTORY], "check", output=StringIO())
            assert tables(empty_database_url, schema) == {*models, "alembic_version"}
            migrate(settings, [HISTORY], "downgrade base", output=StringIO())
            assert tables(empty_database_url, schema) == {"alembic_version"}

"""The database that these tests share with no other process."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tequipy_platform.wiring import Database, DatabaseSettings, build_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Yield the migrated, empty database."""
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        yield database

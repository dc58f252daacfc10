"""The PostgreSQL database of these tests."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tequipy_platform.database import Database, DatabaseSettings, build_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Yield a migrated, empty database."""
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        yield database

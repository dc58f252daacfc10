"""Fixtures for all tests of platform."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.testing import FrozenClock


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        yield database


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()

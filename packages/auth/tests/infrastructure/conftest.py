"""The PostgreSQL database and the real access tokens of these tests."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tequipy_auth.infrastructure.tokens import JwtAccessTokens
from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.testing import FrozenClock

from .access_tokens import make_tokens


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Yield a migrated, empty database."""
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        yield database


@pytest.fixture
def tokens(clock: FrozenClock) -> JwtAccessTokens:
    return make_tokens(clock)

"""A process of auth on PostgreSQL and bcrypt."""

from collections.abc import AsyncIterator

import pytest

from tequipy_auth import Auth
from tequipy_platform.database import Database

from .processes import make_auth


@pytest.fixture
async def auth(database: Database) -> AsyncIterator[Auth]:
    async with make_auth(database) as auth:
        yield auth

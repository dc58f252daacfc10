from collections.abc import AsyncIterator

import pytest

from tequipy_client import Session

from .api import PASSWORD, Api


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def session(api: Api) -> AsyncIterator[Session]:
    """Return a session that is logged in."""
    async with Session("https://api.example.com", transport=api.transport) as session:
        await session.login("ada@example.com", PASSWORD)
        yield session

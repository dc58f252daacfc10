"""The stores of these tests: every test runs with memory and with PostgreSQL."""

import pytest

from tequipy_auth import Session
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.testing import FrozenClock

from .entities import Work, make_session, make_user, new_id


@pytest.fixture(params=["memory", "postgresql"])
def work(request: pytest.FixtureRequest) -> Work:
    """Return a function that creates units of work over one store."""
    if request.param == "memory":
        held = MemoryAuthUnitOfWork(FrozenClock())
        return lambda: held
    database: Database = request.getfixturevalue("database")
    return lambda: SqlAuthUnitOfWork(database, FrozenClock(), new_id)


@pytest.fixture
async def session(work: Work) -> Session:
    """Return a stored session with its user."""
    user = make_user("owner@example.com")
    session = make_session(user.id)
    async with work() as unit:
        await unit.users.add(user)
        await unit.sessions.add(session)
    return session

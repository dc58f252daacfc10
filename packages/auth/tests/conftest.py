"""A clock that only the test moves, and the in-memory unit of work on it."""

import pytest

from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)

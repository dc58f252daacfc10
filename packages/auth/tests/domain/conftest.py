"""A clock that stands still and a store in memory, which most of these tests share."""

import pytest

from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)

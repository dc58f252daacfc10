"""A clock that only the test moves, and the in-memory unit of work on it."""

import pytest

from tequipy_platform.testing import FrozenClock
from tequipy_reporting.testing import MemoryReportingUnitOfWork


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryReportingUnitOfWork:
    return MemoryReportingUnitOfWork(clock)

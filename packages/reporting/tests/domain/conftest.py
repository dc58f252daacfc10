"""Reporting in memory."""

import pytest

from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_reporting import Reporting
from tequipy_reporting.testing import MemoryReportingUnitOfWork, RecordingReportMetrics, build_fake_reporting


@pytest.fixture
def storage(clock: FrozenClock) -> MemoryStorage:
    return MemoryStorage(clock)


@pytest.fixture
def metrics() -> RecordingReportMetrics:
    return RecordingReportMetrics()


@pytest.fixture
def reporting(
    work: MemoryReportingUnitOfWork, clock: FrozenClock, storage: MemoryStorage, metrics: RecordingReportMetrics
) -> Reporting:
    return build_fake_reporting(work, clock=clock, storage=storage, metrics=metrics)

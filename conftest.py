"""Settings of hypothesis and of the garbage collector for all tests."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test asserts an absolute time, and a busy machine must not fail a test.
settings.register_profile("tequipy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tequipy")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep modules and collected tests out of each later garbage collection: they live until the end of the process.

    Otherwise every full collection visits 600,000 objects.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()

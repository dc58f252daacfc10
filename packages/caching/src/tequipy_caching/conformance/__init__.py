"""A pytest plugin that tests the package's promises on any `CacheManager` and `RateLimiter`; extra `conformance`.

In a `conftest.py`, set `pytest_plugins = ["tequipy_caching.conformance"]` and define a fixture `cache_target` that
returns a `CacheTarget` (for a limiter: `limiter_target`, which returns a `LimiterTarget`). In a test module, `from
tequipy_caching.conformance import *` collects all cases.
"""

from tequipy_observability import needs_extra

with needs_extra("tequipy-caching[conformance]", "pytest_asyncio"):
    import pytest

# Before the modules are imported, so that failing assertions show their values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("invalidation", "limits", "loads", "processes", "sets", "target", "values"))
)

from tequipy_caching.conformance.invalidation import TestInvalidation  # noqa: E402 -- see above
from tequipy_caching.conformance.limits import LimiterTarget, TestLimits  # noqa: E402 -- as above
from tequipy_caching.conformance.loads import TestLoads  # noqa: E402 -- as above
from tequipy_caching.conformance.processes import TestProcesses  # noqa: E402 -- as above
from tequipy_caching.conformance.sets import TestSets  # noqa: E402 -- as above
from tequipy_caching.conformance.target import POLICIES, CacheTarget  # noqa: E402 -- as above
from tequipy_caching.conformance.values import TestValues  # noqa: E402 -- as above

__all__ = [
    "POLICIES",
    "CacheTarget",
    "LimiterTarget",
    "TestInvalidation",
    "TestLimits",
    "TestLoads",
    "TestProcesses",
    "TestSets",
    "TestValues",
]


@pytest.fixture
def cache_target() -> CacheTarget:
    """Raise an error, because the project does not define the manager under test."""
    raise pytest.UsageError("define a fixture `cache_target` that returns your tequipy_caching.conformance.CacheTarget")


@pytest.fixture
def limiter_target() -> LimiterTarget:
    """Skip the cases of the limiter, because the project does not define one."""
    return pytest.skip("define a fixture `limiter_target` that returns your tequipy_caching.conformance.LimiterTarget")

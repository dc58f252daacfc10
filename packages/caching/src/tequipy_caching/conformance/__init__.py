"""A pytest plugin with this package's promises as tests, to be pointed at any `CacheManager` and `RateLimiter`.

In a `conftest.py` say `pytest_plugins = ["tequipy_caching.conformance"]` and define a fixture `cache_target` that
returns a `CacheTarget` (for a limiter `limiter_target`, a `LimiterTarget`); in a test module `from
tequipy_caching.conformance import *` collects every case. Extra `conformance`.
"""

try:
    import pytest
    import pytest_asyncio  # noqa: F401 -- asked for here, so that the answer names the extra; runs the cases
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("tequipy_caching.conformance: install tequipy-caching[conformance]") from error

# Before they are imported: a failing case shows its values.
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
    """Say what is missing: the manager to point the cases at."""
    raise pytest.UsageError("define a fixture `cache_target` that returns your tequipy_caching.conformance.CacheTarget")


@pytest.fixture
def limiter_target() -> LimiterTarget:
    """Skip the cases of a limiter where there is none to point them at."""
    return pytest.skip("define a fixture `limiter_target` that returns your tequipy_caching.conformance.LimiterTarget")

"""A pytest plugin with auth's security promises as tests over HTTP, to be pointed at any app. Extra `conformance`.

In a `conftest.py` say `pytest_plugins = ["tequipy_auth.conformance"]` and define a fixture `auth_target` that returns a
`Target`; in a test module `from tequipy_auth.conformance import *` collects every case. Lift the rate limits by client
address in the app under test (`TEQUIPY_RATE_LIMITS__LOGIN=off` and so on): all cases come from one address.
"""

try:
    import httpx  # noqa: F401 -- asked for here, so that the answer names the extra
    import pytest
    import pytest_asyncio  # noqa: F401 -- as above: runs the cases
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("tequipy_auth.conformance: install tequipy-auth[conformance]") from error

# Before they are imported: a failing case shows its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("abuse", "access_tokens", "passwords", "sessions", "target"))
)

from tequipy_auth.conformance.abuse import TestAbuse  # noqa: E402 -- see above
from tequipy_auth.conformance.access_tokens import TestAccessTokens  # noqa: E402 -- as above
from tequipy_auth.conformance.passwords import TestPasswords  # noqa: E402 -- as above
from tequipy_auth.conformance.sessions import TestSessions  # noqa: E402 -- as above
from tequipy_auth.conformance.target import Target  # noqa: E402 -- as above

__all__ = ["Target", "TestAbuse", "TestAccessTokens", "TestPasswords", "TestSessions"]


@pytest.fixture
def auth_target() -> Target:
    """Say what is missing: the app to point the cases at."""
    raise pytest.UsageError("define a fixture `auth_target` that returns your tequipy_auth.conformance.Target")

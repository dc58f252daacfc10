"""A pytest plugin that checks auth's security promises over HTTP, for any app. Needs the extra `conformance`.

In a `conftest.py` write `pytest_plugins = ["tequipy_auth.conformance"]` and define a fixture `auth_target` that returns
a `Target`; in a test module `from tequipy_auth.conformance import *` collects every case. Disable the rate limits by
client address in the app under test (each policy of `RATE_POLICIES` set to `off`), because all cases use one address.
"""

from tequipy_observability import needs_extra

with needs_extra("tequipy-auth[conformance]", "httpx", "pytest_asyncio"):
    import pytest

# Registered before the modules are imported, so that failed assertions show their values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in ("abuse", "access_tokens", "email_changes", "passwords", "sessions", "target")
    )
)

from tequipy_auth.conformance.abuse import TestAbuse  # noqa: E402 -- see above
from tequipy_auth.conformance.access_tokens import TestAccessTokens  # noqa: E402 -- as above
from tequipy_auth.conformance.email_changes import TestEmailChanges  # noqa: E402 -- as above
from tequipy_auth.conformance.passwords import TestPasswords  # noqa: E402 -- as above
from tequipy_auth.conformance.sessions import TestSessions  # noqa: E402 -- as above
from tequipy_auth.conformance.target import Target  # noqa: E402 -- as above

__all__ = ["Target", "TestAbuse", "TestAccessTokens", "TestEmailChanges", "TestPasswords", "TestSessions"]


@pytest.fixture
def auth_target() -> Target:
    """Raise an error that explains how to define this fixture."""
    raise pytest.UsageError("define a fixture `auth_target` that returns your tequipy_auth.conformance.Target")

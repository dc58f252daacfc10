"""Login to an account whose address is not verified."""

import pytest

from tequipy_auth import Auth, EmailNotVerified
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock

from .accounts import EMAIL, PASSWORD
from .attempts import HOME, fail, is_locked, log_in


@pytest.fixture
async def unverified(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    """Auth with open registration, and an unverified account."""
    auth = build_fake_auth(work, clock=clock, registration_mode="open")
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=HOME)
    return auth


async def test_only_the_right_password_reveals_an_unverified_address(unverified: Auth) -> None:
    """With a wrong password an unverified account answers like any other."""
    await fail(unverified)
    with pytest.raises(EmailNotVerified):
        await log_in(unverified)


async def test_an_unverified_address_is_no_failure(unverified: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The correct password for an unverified account neither locks nor clears counters."""
    await fail(unverified, 4)
    for _ in range(20):
        with pytest.raises(EmailNotVerified):
            await log_in(unverified)
    assert not work.sessions.rows
    assert work.audit.events[-1].reason == "email_not_verified"
    await fail(unverified)
    assert await is_locked(unverified) == 30

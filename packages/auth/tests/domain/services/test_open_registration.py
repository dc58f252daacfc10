"""Open registration: an account exists before its address is verified."""

from dataclasses import replace

import pytest

from tequipy_auth import Auth, Client, EmailTaken, InvalidOneTimeToken, Outcome
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock

from .accounts import MIXED_CASE_EMAIL, PASSWORD, mailed_tokens


@pytest.fixture
def open_auth(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    return build_fake_auth(work, clock=clock, registration_mode="open")


async def test_an_open_account_exists_at_once(open_auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """An open account is unverified until its link is opened, and keeps its id and password."""
    user = await open_auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, name="Ada", client=Client())
    assert user is not None
    assert list(work.users.rows.values()) == [user]
    assert (user.email_verified, user.roles, user.name) == (False, ("user",), "Ada")
    first, *_ = await mailed_tokens(open_auth, work)
    await open_auth.registration.resend_verification(email=MIXED_CASE_EMAIL)
    second, *_ = await mailed_tokens(open_auth, work)
    await open_auth.registration.verify_email(second, client=Client())
    assert work.users.rows == {user.id: replace(user, email_verified=True)}
    with pytest.raises(InvalidOneTimeToken):
        await open_auth.registration.verify_email(first, client=Client())
    await open_auth.registration.resend_verification(email=MIXED_CASE_EMAIL)
    assert await mailed_tokens(open_auth, work) == [], "there is nothing left to verify"


async def test_an_open_account_replaces_pending_registrations(
    auth: Auth, open_auth: Auth, work: MemoryAuthUnitOfWork
) -> None:
    """A user with a pending registration and an open account can request another link."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    await open_auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    await mailed_tokens(open_auth, work)
    await open_auth.registration.resend_verification(email=MIXED_CASE_EMAIL)
    (token,) = await mailed_tokens(open_auth, work)
    await open_auth.registration.verify_email(token, client=Client())


async def test_a_link_to_a_verified_address_is_refused(open_auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A link is refused after the address was verified by a password reset."""
    user = await open_auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    assert user is not None
    (token,) = await mailed_tokens(open_auth, work)
    await work.users.set_verified(user.id)
    with pytest.raises(InvalidOneTimeToken):
        await open_auth.registration.verify_email(token, client=Client())


async def test_open_registration_refuses_a_taken_address(open_auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The second registration of an address changes nothing, sends nothing, and is audited."""
    user = await open_auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    assert user is not None
    with pytest.raises(EmailTaken):
        await open_auth.registration.register(email=MIXED_CASE_EMAIL, password="another password", client=Client())
    assert work.users.rows == {user.id: user}
    assert len(work.outbox.tasks) == 1
    assert [(event.outcome, event.reason, event.subject_id) for event in work.audit.events] == [
        (Outcome.SUCCESS, None, user.id),
        (Outcome.FAILURE, "email_taken", None),
    ]

"""Several pending registrations of one address: the account never gets the password of another person."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from tequipy_auth import AuditAction, Auth, InvalidCredentials, InvalidOneTimeToken, Outcome, PasswordRequired
from tequipy_auth.domain.policy import REGISTRATION_TTL
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Unavailable
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, PASSWORD, CountingHasher, mails, token_of

STRANGERS = "a stranger's own password"


async def register(auth: Auth, work: MemoryAuthUnitOfWork, password: str) -> str:
    """Register, and return the token from the mail."""
    await auth.registration.register(email=EMAIL, password=password, client=CLIENT)
    (mail,) = await mails(auth, work)
    return token_of(mail)


async def verify(auth: Auth, token: str, password: str | None = None) -> None:
    await auth.registration.verify_email(token, password=password, client=CLIENT)


async def test_a_requested_link_is_never_an_attackers(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The mail contains advice instead of a link when an attacker registered after the owner."""
    await register(auth, work, PASSWORD)
    await register(auth, work, STRANGERS)
    await auth.registration.resend_verification(email=EMAIL)
    (mail,) = await mails(auth, work)
    assert mail.subject == "register_again"
    assert "token" not in mail.text
    token = await register(auth, work, PASSWORD)
    await verify(auth, token, PASSWORD)
    await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)


async def test_a_contested_link_requires_its_own_password(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A link creates an account only with the password of its own registration."""
    owners, strangers = await register(auth, work, PASSWORD), await register(auth, work, STRANGERS)
    with pytest.raises(PasswordRequired):
        await verify(auth, strangers)
    with pytest.raises(InvalidCredentials):
        await verify(auth, strangers, PASSWORD)
    assert work.users.rows == {}
    await verify(auth, owners, PASSWORD)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=EMAIL, password=STRANGERS, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await verify(auth, strangers, STRANGERS)


async def test_a_link_alone_is_enough_for_the_only_registration(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """Registrations of other addresses and expired ones do not make the link require a password."""
    await register(auth, work, STRANGERS)
    clock.advance(REGISTRATION_TTL)
    await auth.registration.register(email="bob@example.com", password=STRANGERS, client=CLIENT)
    await mails(auth, work)
    token = await register(auth, work, PASSWORD)
    await verify(auth, token)


async def test_a_token_allows_five_password_attempts(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The fifth attempt may succeed; after five wrong ones the link is invalid, and other links are not affected."""
    first, second = await register(auth, work, PASSWORD), await register(auth, work, PASSWORD)
    for _ in range(5):
        with pytest.raises(InvalidCredentials):
            await verify(auth, first, "a wrong password")
    for password in (PASSWORD, None):
        with pytest.raises(InvalidOneTimeToken):
            await verify(auth, first, password)
    for _ in range(4):
        with pytest.raises(InvalidCredentials):
            await verify(auth, second, "a wrong password")
    with pytest.raises(PasswordRequired):
        await verify(auth, second)
    await verify(auth, second, PASSWORD)


async def test_at_most_five_parallel_guesses_are_checked(
    auth: Auth, work: MemoryAuthUnitOfWork, hasher: CountingHasher
) -> None:
    """An attempt is counted before its password is hashed."""
    await register(auth, work, STRANGERS)
    token = await register(auth, work, PASSWORD)
    guesses = (verify(auth, token, "a wrong password") for _ in range(20))
    kinds = Counter(type(answer) for answer in await asyncio.gather(*guesses, return_exceptions=True))
    assert (kinds, hasher.looked_at) == ({InvalidCredentials: 5, InvalidOneTimeToken: 15}, 5)


async def test_a_full_queue_uses_no_attempt(auth: Auth, work: MemoryAuthUnitOfWork, hasher: CountingHasher) -> None:
    """An attempt whose password was not checked is not counted."""
    await register(auth, work, STRANGERS)
    token = await register(auth, work, PASSWORD)
    hasher.full = True
    for _ in range(6):
        with pytest.raises(Unavailable):
            await verify(auth, token, PASSWORD)
    hasher.full = False
    await verify(auth, token, PASSWORD)


async def test_refused_verifications_are_audited(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Verifications without a password and with a wrong one are audited."""
    await register(auth, work, STRANGERS)
    token = await register(auth, work, PASSWORD)
    with pytest.raises(PasswordRequired):
        await verify(auth, token)
    with pytest.raises(InvalidCredentials):
        await verify(auth, token, "a wrong password")
    verified = [event for event in work.audit.events if event.action is AuditAction.VERIFIED]
    assert [(event.outcome, event.reason) for event in verified] == [
        (Outcome.FAILURE, "password_required"),
        (Outcome.FAILURE, "invalid_credentials"),
    ]


async def test_a_resend_tells_the_owner_about_the_existing_account(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Registrations that are newer than the account do not lead to a request to register again."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    for _ in range(2):
        await auth.registration.register(email=EMAIL, password=STRANGERS, client=CLIENT)
    await mails(auth, work)
    await auth.registration.resend_verification(email=EMAIL)
    assert [mail.subject for mail in await mails(auth, work)] == ["already_registered"]


async def test_the_last_pending_registration_needs_no_password(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """When only one registration is left, its link works without a password."""
    await register(auth, work, STRANGERS)
    clock.advance(REGISTRATION_TTL - timedelta(hours=1))
    token = await register(auth, work, PASSWORD)
    with pytest.raises(PasswordRequired):
        await verify(auth, token)
    clock.advance(timedelta(hours=1))
    await verify(auth, token)

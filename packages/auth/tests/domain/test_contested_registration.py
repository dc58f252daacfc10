"""An address that several people have registered, over the in-memory twins: no account gets another's password."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import (
    AuditAction,
    Auth,
    Client,
    InvalidCredentials,
    InvalidOneTimeToken,
    Outcome,
    PasswordRequired,
)
from tequipy_auth.domain.services.registration import REGISTRATION_TTL
from tequipy_auth.testing import FakePasswordHasher, MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, Mail, Unavailable
from tequipy_platform.testing import FrozenClock, RecordingMailer

PASSWORD, STRANGERS = "correct horse battery staple", "a stranger's own password"
EMAIL, CLIENT = "ada@example.com", Client("192.0.2.1", "test")


class MoodyHasher(FakePasswordHasher):
    """Verifies, or has a full queue, and counts what it looked at."""

    def __init__(self) -> None:
        self.full = False
        self.looked_at = 0

    async def verify(self, *arguments: Any, **more: Any) -> bool:
        if self.full:
            raise Unavailable
        self.looked_at += 1
        return await super().verify(*arguments, **more)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
def hasher() -> MoodyHasher:
    return MoodyHasher()


@pytest.fixture
def auth(work: MemoryAuthUnitOfWork, clock: FrozenClock, hasher: MoodyHasher) -> Auth:
    return build_fake_auth(work, clock=clock, hasher=hasher)


async def mails(auth: Auth, work: MemoryAuthUnitOfWork) -> list[Mail]:
    """Send what the outbox asks for."""
    mailer = RecordingMailer()
    asked, work.outbox.tasks[:] = list(work.outbox.tasks), []
    for each in asked:
        payload: dict[str, Any] = each.payload
        await auth.mailing(mailer).send_mail(Delivery(work.new_id(), each.task), **payload)
    return mailer.mails


def token_of(mail: Mail) -> str:
    return mail.text.partition("#token=")[2].strip()


async def register(auth: Auth, work: MemoryAuthUnitOfWork, password: str) -> str:
    """Register, and return the token of the mail that follows."""
    await auth.registration.register(email=EMAIL, password=password, client=CLIENT)
    (mail,) = await mails(auth, work)
    return token_of(mail)


async def verify(auth: Auth, token: str, password: str | None = None) -> None:
    await auth.registration.verify_email(token, password=password, client=CLIENT)


async def test_another_link_is_never_a_strangers(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The owner registers, a stranger registers, the owner asks for another link: the mail has none, but advice."""
    await register(auth, work, PASSWORD)
    await register(auth, work, STRANGERS)
    await auth.registration.resend_verification(email=EMAIL)
    (mail,) = await mails(auth, work)
    assert mail.subject == "register_again"
    assert "token" not in mail.text
    token = await register(auth, work, PASSWORD)
    await verify(auth, token, PASSWORD)
    await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)


async def test_a_strangers_link_asks_for_the_strangers_password(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Without a password or with the owner's it makes no account; the owner's own link and password do."""
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
    """Registrations of other addresses, and those that are over, ask for nothing."""
    await register(auth, work, STRANGERS)
    clock.advance(REGISTRATION_TTL)
    await auth.registration.register(email="bob@example.com", password=STRANGERS, client=CLIENT)
    await mails(auth, work)
    token = await register(auth, work, PASSWORD)
    await verify(auth, token)


async def test_a_token_is_good_for_five_tries(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The fifth may be right; after five wrong ones the link is dead, with or without a password; others are not."""
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


async def test_of_many_guesses_at_once_five_are_looked_at(
    auth: Auth, work: MemoryAuthUnitOfWork, hasher: MoodyHasher
) -> None:
    """A try is counted before its password is hashed."""
    await register(auth, work, STRANGERS)
    token = await register(auth, work, PASSWORD)
    guesses = (verify(auth, token, "a wrong password") for _ in range(20))
    kinds = Counter(type(answer) for answer in await asyncio.gather(*guesses, return_exceptions=True))
    assert (kinds, hasher.looked_at) == ({InvalidCredentials: 5, InvalidOneTimeToken: 15}, 5)


async def test_a_full_queue_costs_no_try(auth: Auth, work: MemoryAuthUnitOfWork, hasher: MoodyHasher) -> None:
    """What nobody looked at was no try."""
    await register(auth, work, STRANGERS)
    token = await register(auth, work, PASSWORD)
    hasher.full = True
    for _ in range(6):
        with pytest.raises(Unavailable):
            await verify(auth, token, PASSWORD)
    hasher.full = False
    await verify(auth, token, PASSWORD)


async def test_refused_verifications_are_on_record(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The one without a password, and the one with a wrong one."""
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


async def test_an_owner_with_an_account_is_told_so_by_a_resend(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Registrations that came after the account ask nobody to register again."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    for _ in range(2):
        await auth.registration.register(email=EMAIL, password=STRANGERS, client=CLIENT)
    await mails(auth, work)
    await auth.registration.resend_verification(email=EMAIL)
    assert [mail.subject for mail in await mails(auth, work)] == ["already_registered"]


async def test_the_next_registration_asks_again(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """When only one is left, its link works alone."""
    await register(auth, work, STRANGERS)
    clock.advance(REGISTRATION_TTL - timedelta(hours=1))
    token = await register(auth, work, PASSWORD)
    with pytest.raises(PasswordRequired):
        await verify(auth, token)
    clock.advance(timedelta(hours=1))
    await verify(auth, token)

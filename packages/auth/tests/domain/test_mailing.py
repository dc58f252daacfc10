"""The mails of auth, over the in-memory twins: what is sent, and that it is sent once."""

from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import Auth, Client
from tequipy_auth.domain.services.mailing import LEASE
from tequipy_auth.domain.services.registration import REGISTRATION_TTL
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, Lease, Mail, Mailer, MailRejected, MailUnavailable
from tequipy_platform.testing import CountingIds, FrozenClock, RecordingMailer

PASSWORD = "correct horse battery staple"
EMAIL = "Ada@Example.com"


class FailingMailer(Mailer):
    """Refuses every mail in one way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send(self, mail: Mail) -> None:  # noqa: ARG002 -- the port's signature
        raise self._error


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
def auth(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    return build_fake_auth(work, clock=clock)


@pytest.fixture
def mailer() -> RecordingMailer:
    return RecordingMailer()


@pytest.fixture
def delivery() -> Delivery:
    return Delivery(CountingIds()(), "auth.send_mail")


@pytest.fixture
async def request_(auth: Auth, work: MemoryAuthUnitOfWork) -> dict[str, Any]:
    """Return the payload of the mail that a registration has asked for."""
    await auth.registration.register(email=EMAIL, password=PASSWORD, name="Ada", client=Client())
    return dict(work.outbox.tasks[-1].payload)


async def test_a_registration_is_mailed_its_link(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any]
) -> None:
    """The mail goes to the address as written, its link has the token in the fragment, and the link works."""
    await auth.mailing(mailer).send_mail(delivery, **request_)
    (mail,) = mailer.mails
    assert (mail.to, mail.subject) == (EMAIL, "verify_email")
    assert mail.message_id == f"<{delivery.id}@testserver>"
    link = mail.text.split("link: ")[1].strip()
    address, token = link.split("#token=")
    assert address == "http://testserver/verify-email"
    await auth.registration.verify_email(token, client=Client())


@pytest.mark.parametrize("hours", [0, 47])
async def test_a_link_says_when_it_ends(
    auth: Auth,
    work: MemoryAuthUnitOfWork,
    mailer: RecordingMailer,
    delivery: Delivery,
    request_: dict[str, Any],
    clock: FrozenClock,
    hours: int,
) -> None:
    """A day after it was minted, or sooner when its registration ends sooner."""
    clock.advance(timedelta(hours=hours))
    await auth.mailing(mailer).send_mail(delivery, **request_)
    (mail,), (token,) = mailer.mails, work.one_time_tokens.rows.values()
    assert f"expires_at: {token.expires_at:%Y-%m-%d %H:%M} UTC" in mail.text
    assert token.expires_at - clock.now() == timedelta(hours=min(24, 48 - hours))


async def test_a_known_address_is_told_of_its_account(
    auth: Auth, work: MemoryAuthUnitOfWork, mailer: RecordingMailer, delivery: Delivery
) -> None:
    """The owner of an account learns that somebody registered; no token is minted."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=Client())
    payload: dict[str, Any] = work.outbox.tasks[-1].payload
    await auth.mailing(mailer).send_mail(delivery, **payload)
    assert [mail.subject for mail in mailer.mails] == ["already_registered"]
    assert not work.one_time_tokens.rows


async def test_a_registration_that_is_over_is_mailed_nothing(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any], clock: FrozenClock
) -> None:
    """A mail that comes after its registration's end is done without being sent."""
    clock.advance(REGISTRATION_TTL)
    await auth.mailing(mailer).send_mail(delivery, **request_)
    assert not mailer.mails


async def test_a_repeated_delivery_sends_one_mail(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any]
) -> None:
    """A message delivered twice is one mail."""
    for _ in range(2):
        await auth.mailing(mailer).send_mail(delivery, **request_)
    assert len(mailer.mails) == 1


async def test_an_attempt_does_not_disturb_another(
    auth: Auth, work: MemoryAuthUnitOfWork, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any]
) -> None:
    """While one attempt holds the lease, another is told to come back."""
    assert await work.inbox.lease(delivery, LEASE) is Lease.TAKEN
    with pytest.raises(MailUnavailable):
        await auth.mailing(mailer).send_mail(delivery, **request_)
    assert not mailer.mails


async def test_a_dead_attempt_is_made_up_for(
    *,
    auth: Auth,
    work: MemoryAuthUnitOfWork,
    mailer: RecordingMailer,
    delivery: Delivery,
    request_: dict[str, Any],
    clock: FrozenClock,
) -> None:
    """When the lease of an attempt that died has ended, the next one sends."""
    await work.inbox.lease(delivery, LEASE)
    clock.advance(LEASE)
    await auth.mailing(mailer).send_mail(delivery, **request_)
    assert len(mailer.mails) == 1


@pytest.mark.parametrize("error", [MailUnavailable(), MailRejected(), RuntimeError()])
async def test_a_failed_attempt_gives_its_lease_back(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any], error: Exception
) -> None:
    """The next attempt need not wait, and its mail has the same Message-ID."""
    with pytest.raises(type(error)):
        await auth.mailing(FailingMailer(error)).send_mail(delivery, **request_)
    await auth.mailing(mailer).send_mail(delivery, **request_)
    assert [mail.message_id for mail in mailer.mails] == [f"<{delivery.id}@testserver>"]


async def test_each_attempt_mints_a_token_and_three_live(
    auth: Auth, work: MemoryAuthUnitOfWork, mailer: RecordingMailer, request_: dict[str, Any], clock: FrozenClock
) -> None:
    """Of one registration's tokens the three newest live: the link of the last mail always works."""
    ids = CountingIds()
    for _ in range(5):
        await auth.mailing(mailer).send_mail(Delivery(ids(), "auth.send_mail"), **request_)
        clock.advance(timedelta(seconds=1))
    assert len(work.one_time_tokens.rows) == 3
    await auth.registration.verify_email(mailer.mails[-1].text.split("#token=")[1].strip(), client=Client())
    assert not work.one_time_tokens.rows


async def test_an_unknown_kind_of_mail_is_an_error(auth: Auth, mailer: RecordingMailer, delivery: Delivery) -> None:
    """A message of a newer release that this one does not know fails, and waits for a worker that does."""
    with pytest.raises(LookupError):
        await auth.mailing(mailer).send_mail(delivery, mail="birthday", subject_id=str(delivery.id))

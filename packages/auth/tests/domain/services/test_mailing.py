"""The mails of auth, with the in-memory fakes: which ones are sent, and that each is sent once."""

from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import Auth, Client
from tequipy_auth.domain.policy import REGISTRATION_TTL
from tequipy_auth.domain.services.mailing import LEASE
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Delivery, Lease, Mail, Mailer, MailRejected, MailUnavailable
from tequipy_platform.testing import CountingIds, FrozenClock, RecordingMailer

from .accounts import MIXED_CASE_EMAIL, PASSWORD


class FailingMailer(Mailer):
    """Refuses every mail with the given error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send(self, mail: Mail) -> None:  # noqa: ARG002 -- the port's signature
        raise self._error


@pytest.fixture
def mailer() -> RecordingMailer:
    return RecordingMailer()


@pytest.fixture
def delivery() -> Delivery:
    return Delivery(CountingIds()(), "auth.send_mail")


@pytest.fixture
async def request_(auth: Auth, work: MemoryAuthUnitOfWork) -> dict[str, Any]:
    """Return the payload of the mail task that a registration created."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, name="Ada", client=Client())
    return dict(work.outbox.tasks[-1].payload)


async def test_a_registration_is_mailed_its_link(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any]
) -> None:
    """The mail goes to the address as written, has the token in the link's fragment, and the link works."""
    await auth.mailing(mailer).send_mail(delivery, **request_)
    (mail,) = mailer.mails
    assert (mail.to, mail.subject) == (MIXED_CASE_EMAIL, "verify_email")
    assert mail.message_id == f"<{delivery.id}@testserver>"
    link = mail.text.split("link: ")[1].strip()
    address, token = link.split("#token=")
    assert address == "http://testserver/verify-email"
    await auth.registration.verify_email(token, client=Client())


@pytest.mark.parametrize("hours", [0, 47])
async def test_a_mail_contains_the_expiry_of_its_link(
    auth: Auth,
    work: MemoryAuthUnitOfWork,
    mailer: RecordingMailer,
    delivery: Delivery,
    request_: dict[str, Any],
    clock: FrozenClock,
    hours: int,
) -> None:
    """The link expires a day after its creation, or with its registration if that is sooner."""
    clock.advance(timedelta(hours=hours))
    await auth.mailing(mailer).send_mail(delivery, **request_)
    (mail,), (token,) = mailer.mails, work.one_time_tokens.rows.values()
    assert f"expires_at: {token.expires_at:%Y-%m-%d %H:%M} UTC" in mail.text
    assert token.expires_at - clock.now() == timedelta(hours=min(24, 48 - hours))


async def test_the_owner_is_told_about_a_registration(
    auth: Auth, work: MemoryAuthUnitOfWork, mailer: RecordingMailer, delivery: Delivery
) -> None:
    """The owner of an account gets a notice about the registration; no token is created."""
    await auth.registration.create_admin(email=MIXED_CASE_EMAIL, password=PASSWORD)
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    payload: dict[str, Any] = work.outbox.tasks[-1].payload
    await auth.mailing(mailer).send_mail(delivery, **payload)
    assert [mail.subject for mail in mailer.mails] == ["already_registered"]
    assert not work.one_time_tokens.rows


async def test_an_expired_registration_gets_no_mail(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any], clock: FrozenClock
) -> None:
    """A mail task that runs after the registration's expiry ends without sending."""
    clock.advance(REGISTRATION_TTL)
    await auth.mailing(mailer).send_mail(delivery, **request_)
    assert not mailer.mails


async def test_a_repeated_delivery_sends_one_mail(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any]
) -> None:
    """A message that is delivered twice sends one mail."""
    for _ in range(2):
        await auth.mailing(mailer).send_mail(delivery, **request_)
    assert len(mailer.mails) == 1


async def test_concurrent_attempts_send_one_mail(
    auth: Auth, work: MemoryAuthUnitOfWork, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any]
) -> None:
    """While one attempt holds the lease, another one raises an error that leads to a retry."""
    assert await work.inbox.lease(delivery, LEASE) is Lease.TAKEN
    with pytest.raises(MailUnavailable):
        await auth.mailing(mailer).send_mail(delivery, **request_)
    assert not mailer.mails


async def test_an_attempt_sends_after_the_lease_of_a_dead_one(
    *,
    auth: Auth,
    work: MemoryAuthUnitOfWork,
    mailer: RecordingMailer,
    delivery: Delivery,
    request_: dict[str, Any],
    clock: FrozenClock,
) -> None:
    """When the lease of an attempt that died has expired, the next attempt sends."""
    await work.inbox.lease(delivery, LEASE)
    clock.advance(LEASE)
    await auth.mailing(mailer).send_mail(delivery, **request_)
    assert len(mailer.mails) == 1


@pytest.mark.parametrize("error", [MailUnavailable(), MailRejected(), RuntimeError()])
async def test_a_failed_attempt_releases_its_lease(
    auth: Auth, mailer: RecordingMailer, delivery: Delivery, request_: dict[str, Any], error: Exception
) -> None:
    """The next attempt does not have to wait, and its mail has the same Message-ID."""
    with pytest.raises(type(error)):
        await auth.mailing(FailingMailer(error)).send_mail(delivery, **request_)
    await auth.mailing(mailer).send_mail(delivery, **request_)
    assert [mail.message_id for mail in mailer.mails] == [f"<{delivery.id}@testserver>"]


async def test_three_tokens_of_a_registration_are_valid(
    auth: Auth, work: MemoryAuthUnitOfWork, mailer: RecordingMailer, request_: dict[str, Any], clock: FrozenClock
) -> None:
    """Each attempt creates a token and the three newest are valid, so the link of the last mail always works."""
    ids = CountingIds()
    for _ in range(5):
        await auth.mailing(mailer).send_mail(Delivery(ids(), "auth.send_mail"), **request_)
        clock.advance(timedelta(seconds=1))
    assert len(work.one_time_tokens.rows) == 3
    await auth.registration.verify_email(mailer.mails[-1].text.split("#token=")[1].strip(), client=Client())
    assert not work.one_time_tokens.rows


async def test_an_unknown_kind_of_mail_is_an_error(auth: Auth, mailer: RecordingMailer, delivery: Delivery) -> None:
    """A message of a newer release fails and is retried by a worker that knows it."""
    with pytest.raises(LookupError):
        await auth.mailing(mailer).send_mail(delivery, mail="birthday", subject_id=str(delivery.id))

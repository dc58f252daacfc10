"""Mail budgets of addresses, with the in-memory fakes."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import Auth, Client
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations
from tequipy_platform import Delivery, Mail, MailRejected, MailUnavailable
from tequipy_platform.testing import FrozenClock, RecordingMailer

from .accounts import CLIENT, PASSWORD

VICTIM = "victim@example.com"
HOUR = timedelta(hours=1)


class Post:
    """Acts as the worker: runs the mail tasks of the outbox and retries failed ones."""

    def __init__(self, auth: Auth, work: MemoryAuthUnitOfWork) -> None:
        self.mailer = MoodyMailer()
        self._auth = auth
        self._work = work
        self._waiting: list[tuple[Delivery, dict[str, Any]]] = []

    async def deliver(self) -> Counter[str]:
        """Attempt every pending mail, and return the number of mails sent so far by kind."""
        self._waiting += [(Delivery(self._work.new_id(), each.task), each.payload) for each in self._work.outbox.tasks]
        self._work.outbox.tasks.clear()
        again = []
        for delivery, payload in self._waiting:
            try:
                await self._auth.mailing(self.mailer).send_mail(delivery, **payload)
            except MailUnavailable:
                again.append((delivery, payload))
            except MailRejected:
                continue
        self._waiting = again
        return Counter(mail.subject for mail in self.mailer.mails)


class MoodyMailer(RecordingMailer):
    """Sends mails or raises the given error."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    async def send(self, mail: Mail) -> None:
        if self.error is not None:
            raise self.error
        await super().send(mail)


@pytest.fixture
def post(auth: Auth, work: MemoryAuthUnitOfWork) -> Post:
    return Post(auth, work)


async def register(auth: Auth, times: int, email: str = VICTIM) -> None:
    for number in range(times):
        await auth.registration.register(email=email, password=PASSWORD, client=Client(f"192.0.2.{number % 3}"))


async def test_an_address_gets_at_most_five_mails_an_hour(
    auth: Auth, post: Post, clock: FrozenClock, operations: RecordingOperations
) -> None:
    """60 registrations from three client addresses send five mails per hour; the others are counted as over budget."""
    await register(auth, 60)
    assert (await post.deliver()).total() == 5
    assert operations.counts["send_mail", "over_budget"] == 55
    clock.advance(HOUR)
    await register(auth, 60)
    assert (await post.deliver()).total() == 10


async def test_the_budget_covers_addresses_with_an_account(auth: Auth, post: Post) -> None:
    """The budget is the same for an address with an account."""
    await auth.registration.create_admin(email=VICTIM, password=PASSWORD)
    await register(auth, 60)
    assert await post.deliver() == {"already_registered": 5}


async def test_all_spellings_of_an_address_share_a_budget(auth: Auth, post: Post) -> None:
    """Spellings of an address in other case share its budget; other addresses have their own."""
    await register(auth, 4)
    await register(auth, 4, VICTIM.upper())
    await register(auth, 4, "other@example.com")
    await post.deliver()
    assert Counter(mail.to.lower() for mail in post.mailer.mails) == {VICTIM: 5, "other@example.com": 4}


async def test_requests_without_a_mail_are_not_charged(auth: Auth, post: Post) -> None:
    """Resends for a verified address send nothing and leave the budget for a reset unchanged."""
    await auth.registration.create_admin(email=VICTIM, password=PASSWORD)
    for _ in range(20):
        await auth.registration.resend_verification(email=VICTIM)
    await post.deliver()
    await auth.passwords.forgot(email=VICTIM, client=CLIENT)
    assert await post.deliver() == {"reset_password": 1}


async def test_each_purpose_has_its_own_budget(auth: Auth, post: Post, work: MemoryAuthUnitOfWork) -> None:
    """Registrations, resends and resets do not use up each other's budgets."""
    await register(auth, 6)
    await post.deliver()
    for registration in list(work.registrations.rows)[1:]:
        del work.registrations.rows[registration]
    for _ in range(6):
        await auth.registration.resend_verification(email=VICTIM)
    assert (await post.deliver()).total() == 10
    await auth.registration.create_admin(email=VICTIM, password=PASSWORD)
    for _ in range(6):
        await auth.passwords.forgot(email=VICTIM, client=CLIENT)
    assert (await post.deliver())["reset_password"] == 5


async def test_a_retried_mail_is_charged_once(auth: Auth, post: Post, clock: FrozenClock) -> None:
    """Mails that wait for the server are all sent in the end, for any number of attempts."""
    post.mailer.error = MailUnavailable()
    await register(auth, 5)
    for _ in range(20):
        assert (await post.deliver()).total() == 0
        clock.advance(timedelta(minutes=10))
    post.mailer.error = None
    assert (await post.deliver()).total() == 5


async def test_waiting_mails_are_limited_too(auth: Auth, post: Post, clock: FrozenClock) -> None:
    """After an outage of a night an address gets no more mails than the hourly budget."""
    post.mailer.error = MailUnavailable()
    for _ in range(8 * 6):
        await register(auth, 5)
        await post.deliver()
        clock.advance(timedelta(minutes=10))
    post.mailer.error = None
    assert (await post.deliver()).total() == 5


async def test_a_rejected_mail_is_not_charged(auth: Auth, post: Post) -> None:
    """A mail that the server rejected for good releases its charge."""
    post.mailer.error = MailRejected()
    await register(auth, 5)
    await post.deliver()
    post.mailer.error = None
    await register(auth, 5)
    assert (await post.deliver()).total() == 5


async def test_an_unsent_mail_invalidates_no_link(auth: Auth, post: Post) -> None:
    """Requests above the budget do not invalidate the owner's earlier links."""
    await auth.registration.create_admin(email=VICTIM, password=PASSWORD)
    for _ in range(20):
        await auth.passwords.forgot(email=VICTIM, client=CLIENT)
    await post.deliver()
    token = post.mailer.mails[-1].text.partition("#token=")[2].strip()
    await auth.passwords.reset(token, new_password="an even better password", client=CLIENT)


async def test_notices_have_no_budget(auth: Auth, post: Post, work: MemoryAuthUnitOfWork) -> None:
    """The owner gets every notice, because a notice requires the account's password or token."""
    await auth.registration.create_admin(email=VICTIM, password=PASSWORD)
    (user,) = work.users.rows.values()
    for _ in range(8):
        work.outbox.add("auth.send_mail", mail="session_stolen", subject_id=str(user.id))
    assert await post.deliver() == {"session_stolen": 8}


async def test_charges_are_deleted_after_an_hour(
    auth: Auth, post: Post, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """The hourly purge deletes old charges, which never contain an address."""
    await register(auth, 3)
    await post.deliver()
    assert "example.com" not in repr(work.mail_charges.rows)
    clock.advance(HOUR)
    await auth.housekeeping.purge(Delivery(work.new_id(), "auth.purge"))
    assert work.mail_charges.rows == {}

"""The account of these tests, its clients, and what happens to it in most of them."""

import asyncio
from datetime import timedelta
from typing import Any

from tequipy_auth import Auth, Client, HashingClient, PasswordHash, Principal, User
from tequipy_auth.testing import FakePasswordHasher, MemoryAuthUnitOfWork
from tequipy_platform import Delivery, Mail, Unavailable
from tequipy_platform.testing import RecordingMailer

EMAIL, MIXED_CASE_EMAIL = "ada@example.com", "Ada@Example.com"
PASSWORD, NEW = "correct horse battery staple", "an even better password"
CLIENT = Client("192.0.2.1", "test")
MOMENT = timedelta(seconds=1)


class CountingHasher(FakePasswordHasher):
    """Counts password checks; `full` makes it raise `Unavailable`, `dies` makes it never return."""

    def __init__(self) -> None:
        self.looked_at = 0
        self.full = False
        self.dies = False
        self.highest_costs: list[int] = []

    async def verify(
        self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
    ) -> bool:
        self.highest_costs.append(highest_cost)
        if self.dies:
            raise asyncio.CancelledError
        if self.full:
            raise Unavailable
        self.looked_at += 1
        return await super().verify(password, stored, client)


async def mails(auth: Auth, work: MemoryAuthUnitOfWork) -> list[Mail]:
    """Run the tasks of the outbox and return the mails."""
    mailer = RecordingMailer()
    asked = [added for added in work.outbox.tasks if added.task == "auth.send_mail"]
    work.outbox.tasks.clear()
    for added in asked:
        payload: dict[str, Any] = added.payload
        await auth.mailing(mailer).send_mail(Delivery(work.new_id(), added.task), **payload)
    return mailer.mails


def token_of(mail: Mail) -> str:
    """Return the token of the link in the mail."""
    return mail.text.partition("#token=")[2].strip()


async def mailed_tokens(auth: Auth, work: MemoryAuthUnitOfWork) -> list[str]:
    """Run the tasks of the outbox and return the tokens of the links."""
    return [token_of(mail) for mail in await mails(auth, work) if "#token=" in mail.text]


def account_of(work: MemoryAuthUnitOfWork, email: str = EMAIL) -> User:
    """Return the account of an address."""
    (user,) = [user for user in work.users.rows.values() if user.email.canonical == email]
    return user


def principal_of(work: MemoryAuthUnitOfWork, email: str = EMAIL) -> Principal:
    """Return the caller of a request by this account."""
    user = account_of(work, email)
    return Principal(user.id, user.id, user.roles, user.version, user.created_at, ("pwd",))

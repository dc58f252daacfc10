"""Requests, confirmations and mails of changes of address."""

from datetime import timedelta

from tequipy_auth import Auth, Principal
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Mail

from .accounts import CLIENT, mails, token_of

NEW_EMAIL, THIRD_EMAIL = "ada@example.net", "ada@example.org"
OTHER_EMAIL = "bob@example.com"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Links:
    """The mails of a requested change, by their templates."""

    def __init__(self, sent: list[Mail]) -> None:
        self.mails = {mail.subject: mail for mail in sent}

    @property
    def confirm(self) -> str:
        return self._token("confirm_email")

    @property
    def undo(self) -> str:
        return self._token("undo_email")

    def _token(self, name: str) -> str:
        return token_of(self.mails[name]).split()[0]


async def request(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, email: str = NEW_EMAIL) -> Links:
    await auth.email_changes.request(principal, new_email=email, client=CLIENT)
    return Links(await mails(auth, work))


async def change(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, email: str = NEW_EMAIL) -> Links:
    links = await request(auth, work, principal, email)
    await auth.email_changes.confirm(links.confirm, client=CLIENT)
    await mails(auth, work)
    return links


async def address(auth: Auth, principal: Principal) -> str:
    return (await auth.accounts.profile(principal.user_id)).email

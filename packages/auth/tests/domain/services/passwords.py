"""Logins and password resets by mail."""

from tequipy_auth import Auth, Client, Principal, TokenPair
from tequipy_auth.testing import MemoryAuthUnitOfWork

from .accounts import CLIENT, EMAIL, PASSWORD, mails


async def reset_token(auth: Auth, work: MemoryAuthUnitOfWork) -> str:
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (mail,) = [mail for mail in await mails(auth, work) if mail.subject == "reset_password"]
    link, _, token = mail.text.partition("#token=")
    assert link.endswith("/reset-password")
    return token.strip()


async def log_in(auth: Auth, password: str = PASSWORD, client: Client = CLIENT) -> TokenPair:
    return await auth.login.with_password(email=EMAIL, password=password, client=client)


async def principal_of(auth: Auth, pair: TokenPair) -> Principal:
    return await auth.access_tokens.verify(pair.access.value)


async def reset(auth: Auth, work: MemoryAuthUnitOfWork, password: str) -> None:
    """Reset the password by mail and send the notice."""
    await auth.passwords.reset(await reset_token(auth, work), new_password=password, client=CLIENT)
    await mails(auth, work)

"""The link that ends a session on PostgreSQL, beside a thief who replaces the session at that moment."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import delete

from tequipy_auth import Auth, Client, TokenPair
from tequipy_auth.infrastructure.models import MailChargeRow
from tequipy_platform import DomainError
from tequipy_platform.database import Database

from .processes import CLIENT, EMAIL, PASSWORD, sent_mails

ROUNDS = 20
THIEF = Client("192.0.2.66", "thief")


async def test_a_reauthentication_does_not_escape_the_link(auth: Auth, database: Database) -> None:
    """A thief who reauthenticates and refreshes while the owner opens the link holds no live session afterwards."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    counts: Counter[str] = Counter()
    for number in range(ROUNDS):
        pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=Client(f"192.0.{number}.66"))
        token = await mailed_token(auth, database)
        principal = await auth.access_tokens.verify(pair.access.value)
        ended, *answers = await asyncio.gather(
            end_later(auth, token, delay=number / 500),
            auth.login.reauthenticate(principal, password=PASSWORD, client=THIEF),
            auth.sessions.refresh(str(pair.refresh), client=THIEF),
            return_exceptions=True,
        )
        assert ended is None
        counts[" ".join("ok" if isinstance(each, TokenPair) else getattr(each, "code", "?") for each in answers)] += 1
        for held in (pair, *(each for each in answers if isinstance(each, TokenPair))):
            with pytest.raises(DomainError):
                await auth.sessions.refresh(str(held.refresh), client=THIEF)
    print(f"\n{ROUNDS} rounds, answers to the thief's reauthentication and refresh: {counts}")
    assert sum(counts.values()) == ROUNDS


async def end_later(auth: Auth, token: str, *, delay: float) -> None:
    """Open the link after a delay, which varies the moment within the reauthentication."""
    await asyncio.sleep(delay)
    await auth.sign_ins.end_session(token, client=CLIENT)


async def mailed_token(auth: Auth, database: Database) -> str:
    """Send the mails and return the token of the only new notice, whose budget is emptied for further rounds."""
    (mail,) = [mail for mail in await sent_mails(auth, database) if "/end-session#token=" in mail.text]
    async with database.sessions.begin() as session:
        await session.execute(delete(MailChargeRow))
    return mail.text.partition("#token=")[2].split()[0]

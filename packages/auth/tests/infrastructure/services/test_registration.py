"""Registration on PostgreSQL and bcrypt, with real concurrency."""

import asyncio

import pytest
from sqlalchemy import func, select

from tequipy_auth import (
    Auth,
    EmailNotVerified,
    InvalidCredentials,
    InvalidOneTimeToken,
    PasswordRequired,
    SessionRevoked,
)
from tequipy_auth.infrastructure.models import RegistrationRow, UserRow
from tequipy_platform.database import Database

from .processes import CLIENT, EMAIL, PASSWORD, mailed_tokens, make_auth, sent_mails


async def test_register_verify_log_in_refresh_and_log_out(auth: Auth, database: Database) -> None:
    """A user can register, verify the address, log in, refresh, see the profile and log out."""
    await auth.registration.register(email=EMAIL, password=PASSWORD, name="Ada", client=CLIENT)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    await auth.registration.verify_email(token, client=CLIENT)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    pair = await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    principal = await auth.access_tokens.verify(pair.access.value)
    assert (await auth.accounts.profile(principal.user_id)).email == EMAIL
    await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(pair.refresh), client=CLIENT)


async def test_parallel_verifications_create_one_account(auth: Auth, database: Database) -> None:
    """Five registrations of one address that are verified at once create one account."""
    await asyncio.gather(*(auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT) for _ in range(5)))
    tokens = await mailed_tokens(auth, database)
    assert len(set(tokens)) == 5
    answers = await asyncio.gather(
        *(auth.registration.verify_email(token, password=PASSWORD, client=CLIENT) for token in tokens),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if answer is not None]
    assert len(refused) == 4
    assert {type(answer) for answer in refused} == {InvalidOneTimeToken}
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(UserRow)) == 1


async def test_a_registration_and_a_verification_are_serialised(auth: Auth, database: Database) -> None:
    """A link that is opened during another registration is refused or creates the account of its registration."""
    outcomes = []
    for number in range(20):
        email = f"ada{number}@example.com"
        await auth.registration.register(email=email, password=PASSWORD, client=CLIENT)
        (mail,) = [mail for mail in await sent_mails(auth, database) if mail.to == email]
        token = mail.text.partition("#token=")[2].split()[0]
        answer, _ = await asyncio.gather(
            auth.registration.verify_email(token, client=CLIENT),
            auth.registration.register(email=email, password="a stranger's password", client=CLIENT),
            return_exceptions=True,
        )
        async with database.sessions() as session:
            accounts = list(await session.scalars(select(UserRow).where(UserRow.email == email)))
            pending = list(await session.scalars(select(RegistrationRow).where(RegistrationRow.email == email)))
        outcomes.append((type(answer), len(accounts), len(pending)))
        if accounts:
            await auth.login.with_password(email=email, password=PASSWORD, client=CLIENT)
    assert set(outcomes) <= {(PasswordRequired, 0, 2), (type(None), 1, 1)}, outcomes


async def test_parallel_open_registrations_create_one_account(database: Database) -> None:
    """One of 20 concurrent open registrations of one address succeeds, the others are refused."""
    async with make_auth(database, registration_mode="open") as auth:
        answers = await asyncio.gather(
            *(auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT) for _ in range(20)),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["EmailTaken"] * 19 + ["User"]
        with pytest.raises(EmailNotVerified):
            await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
        (token,) = await mailed_tokens(auth, database)
        await auth.registration.verify_email(token, client=CLIENT)
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)

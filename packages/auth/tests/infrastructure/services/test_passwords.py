"""Password resets and changes on PostgreSQL and bcrypt, with real concurrency."""

import asyncio

import pytest
from sqlalchemy import select

from tequipy_auth import Auth, Client, InvalidOneTimeToken, SessionRevoked
from tequipy_auth.infrastructure.models import SessionRow
from tequipy_platform.database import Database

from .processes import CLIENT, EMAIL, PASSWORD, mailed_tokens


async def test_one_of_several_parallel_resets_succeeds(auth: Auth, database: Database) -> None:
    """20 parallel uses of one link set one password, which works; earlier sessions end."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    passwords = [f"an even better password {number}" for number in range(20)]
    answers = await asyncio.gather(
        *(auth.passwords.reset(token, new_password=password, client=CLIENT) for password in passwords),
        return_exceptions=True,
    )
    ((winner, _),) = [(password, answer) for password, answer in zip(passwords, answers, strict=True) if not answer]
    assert {type(answer) for answer in answers if answer} == {InvalidOneTimeToken}
    await auth.login.with_password(email=EMAIL, password=winner, client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(pair.refresh), client=CLIENT)


async def test_a_login_and_a_change_at_once_leave_no_session_of_the_old_password(
    auth: Auth, database: Database
) -> None:
    """A login during a password change starts no session that survives the change."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    own = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    principal = await auth.access_tokens.verify(own.access.value)
    await asyncio.gather(
        auth.passwords.change(principal, current_password=PASSWORD, new_password=PASSWORD * 2, client=CLIENT),
        *(
            auth.login.with_password(email=EMAIL, password=PASSWORD, client=Client(f"192.0.2.{number}"))
            for number in range(10)
        ),
        return_exceptions=True,
    )
    async with database.sessions() as session:
        live = list(await session.scalars(select(SessionRow.id).where(SessionRow.revoked_at.is_(None))))
    assert live == [principal.session_id]

"""Login on PostgreSQL and bcrypt, with real concurrency: attempts, devices and hashes."""

import asyncio
from collections import Counter
from secrets import token_bytes

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from tequipy_auth import Auth, Client, InvalidCredentials, LoginLocked
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.infrastructure.hashing import check_digest_padded
from tequipy_auth.infrastructure.models import LoginAttemptRow, UserRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.wiring import AuthSettings
from tequipy_platform import SystemClock
from tequipy_platform.database import Database, uuid7

from .processes import CLIENT, EMAIL, PASSWORD, make_auth, sent_mails


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
async def test_at_most_five_parallel_guesses_are_checked(
    database: Database, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 50 parallel wrong logins in two processes, five are checked and 45 are locked out."""
    looked_at: list[str] = []

    def check(material: bytes, digest: str, cost: int) -> bool:
        looked_at.append(digest)
        return check_digest_padded(material, digest, cost)

    monkeypatch.setattr("tequipy_auth.infrastructure.passwords.check_digest_padded", check)
    async with make_auth(database) as auth, make_auth(database) as other:
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
        for process in (auth, other):  # load the keys first: behind 50 attempts this could exceed the timeout of a load
            await process.access_tokens.check()
        answers = await asyncio.gather(
            *(
                process.login.with_password(email=email, password="wrong", client=CLIENT)
                for process in [auth, other] * 25
            ),
            return_exceptions=True,
        )
    assert Counter(type(answer) for answer in answers) == {InvalidCredentials: 5, LoginLocked: 45}
    assert len(looked_at) == 5


async def test_parallel_successful_logins_leave_no_failure(auth: Auth, database: Database) -> None:
    """After parallel logins from many clients the counters of the account contain no failure."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await asyncio.gather(
        *(
            auth.login.with_password(email=EMAIL, password=PASSWORD, client=Client(f"192.0.2.{number}"))
            for number in range(15)
        )
    )
    async with database.sessions() as session:
        rows = list(await session.scalars(select(LoginAttemptRow)))
    assert [(row.failed_at, row.reserved_at, row.locks) for row in rows if row.account] == [((), (), 0)]


async def test_parallel_logins_leave_ten_devices(auth: Auth, database: Database) -> None:
    """After 15 parallel logins of new devices in two processes ten marks are valid, until a reset."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    places = [Client(f"192.0.2.{number}") for number in range(15)]
    async with make_auth(database) as other:
        logins = ([auth, other][number % 2].login for number in range(15))
        pairs = await asyncio.gather(
            *(
                login.with_password(email=EMAIL, password=PASSWORD, client=place)
                for login, place in zip(logins, places, strict=True)
            )
        )
    marks = DeviceMarks(
        Pseudonyms(AuthSettings().pseudonym_key.get_secret_value().encode()), SystemClock(), token_bytes
    )

    async def valid() -> int:
        async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as work:
            user = await work.users.by_email(EMAIL.casefold())
            assert user is not None
            return sum([await marks.recognise(work, user, pair.device_mark) is not None for pair in pairs])

    assert await valid() == 10
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (mail,) = [mail for mail in await sent_mails(auth, database) if "/reset-password#token=" in mail.text]
    token = mail.text.partition("#token=")[2].split()[0]
    await auth.passwords.reset(token, new_password=PASSWORD * 2, client=CLIENT)
    assert await valid() == 0


async def test_a_lock_outlives_every_process(database: Database) -> None:
    """A process that has just started knows the lock from PostgreSQL."""
    async with make_auth(database) as auth:
        for _ in range(5):
            with pytest.raises(InvalidCredentials):
                await auth.login.with_password(email=EMAIL, password="wrong", client=CLIENT)
    async with make_auth(database) as auth:
        with pytest.raises(LoginLocked):
            await auth.login.with_password(email=EMAIL, password="wrong", client=CLIENT)


async def test_an_outdated_hash_is_renewed_at_login(auth: Auth, database: Database) -> None:
    """After a change of cost and pepper the first login stores a hash with the new parameters."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    peppers = {1: AuthSettings().peppers[1], 2: SecretStr("a new pepper of thirty-two letters")}
    async with make_auth(database, bcrypt_cost=5, peppers=peppers) as newer:
        await newer.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    async with database.sessions() as session:
        (user,) = await session.scalars(select(UserRow))
    assert (user.password_scheme, user.password_cost, user.password_pepper_version) == ("bcrypt-hmac-sha256", 5, 2)
    assert user.password_digest.startswith("$2b$05$")


async def test_parallel_logins_with_an_outdated_hash_all_succeed(auth: Auth, database: Database) -> None:
    """Parallel logins after a change of cost all succeed and leave no failure."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    async with make_auth(database, bcrypt_cost=5) as newer:
        logins = (newer.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT) for _ in range(4))
        await asyncio.gather(*logins)
    async with database.sessions() as session:
        rows = list(await session.scalars(select(LoginAttemptRow)))
    assert {(row.failed_at, row.reserved_at) for row in rows} == {((), ())}

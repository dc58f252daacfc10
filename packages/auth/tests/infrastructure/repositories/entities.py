"""Entities that the tests of the repositories store, the type of their fixture `work`, and a wait for locks."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from tequipy_auth import (
    AuthUnitOfWork,
    Client,
    EmailAddress,
    KeyState,
    OneTimeToken,
    PasswordHash,
    Purpose,
    RefreshToken,
    Registration,
    Session,
    SigningKey,
    User,
)
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH, CountingIds

NOW = EPOCH
HOUR = timedelta(hours=1)
PASSWORD = PasswordHash("scheme", 12, 3, "digest")
VERIFY = Purpose.VERIFY_EMAIL

new_id = CountingIds()
Work = Callable[[], AuthUnitOfWork]


def make_registration(email: str = "ada@example.com") -> Registration:
    return Registration(
        id=new_id(),
        email=EmailAddress(email.title(), email),
        name=None,
        password=PASSWORD,
        created_at=NOW,
        expires_at=NOW + HOUR,
    )


def make_user(email: str = "ada@example.com") -> User:
    return User(
        id=new_id(),
        email=EmailAddress(email.title(), email),
        email_verified=True,
        name="Ada",
        password=PASSWORD,
        roles=("admin", "user"),
        created_at=NOW,
        version=2,
    )


def make_session(user_id: UUID, client: Client = Client("192.0.2.1", "test")) -> Session:  # noqa: B008 -- frozen
    return Session(
        id=new_id(),
        user_id=user_id,
        client=client,
        amr=("pwd",),
        auth_time=NOW,
        created_at=NOW,
        last_used_at=NOW,
        idle_expires_at=NOW + HOUR,
        absolute_expires_at=NOW + 2 * HOUR,
    )


def make_refresh_token(session: Session, parent_id: UUID | None = None) -> RefreshToken:
    return RefreshToken(new_id(), session.id, parent_id, "hash", 7, NOW)


def make_one_time_token(subject_id: UUID, *, age: timedelta = timedelta(0)) -> OneTimeToken:
    return OneTimeToken(new_id(), VERIFY, subject_id, b"hash", NOW - age, NOW + HOUR)


def make_key(kid: str, state: KeyState, *, age: timedelta = timedelta(0)) -> SigningKey:
    return SigningKey(kid, "ES256", state, {"kty": "EC"}, b"encrypted", 1, NOW - age, NOW - age)


async def eventually_waiting(database: Database) -> None:
    """Wait a few seconds until a connection of this database waits for another transaction."""
    query = (
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
    )
    async with asyncio.timeout(30), database.engine.connect() as connection:
        while not await connection.scalar(text(query)):
            await connection.rollback()

"""Correct and wrong passwords from several clients, and the locks that follow."""

from datetime import timedelta

import pytest

from tequipy_auth import Auth, Client, InvalidCredentials, LoginLocked, Principal, TokenPair

from .accounts import EMAIL, PASSWORD

HOME, CAFE = Client("192.0.2.1", "home"), Client("198.51.100.7", "café")
LOCK = timedelta(seconds=30)


async def log_in(auth: Auth, client: Client = HOME, *, email: str = EMAIL) -> TokenPair:
    return await auth.login.with_password(email=email, password=PASSWORD, client=client)


async def fail(auth: Auth, times: int = 1, client: Client = HOME, *, email: str = EMAIL) -> None:
    """Try wrong passwords; each attempt must be checked and refused."""
    for _ in range(times):
        with pytest.raises(InvalidCredentials):
            await auth.login.with_password(email=email, password="wrong", client=client)


async def is_locked(auth: Auth, client: Client = HOME, *, email: str = EMAIL) -> float:
    """Return the remaining seconds of the lock, even for the correct password."""
    with pytest.raises(LoginLocked) as refusal:
        await log_in(auth, client, email=email)
    return refusal.value.retry_after


def at(number: int) -> Client:
    return Client(f"203.0.113.{number}")


async def fail_again(auth: Auth, principal: Principal, times: int) -> None:
    """Try a wrong password in a session."""
    for _ in range(times):
        with pytest.raises(InvalidCredentials):
            await auth.login.reauthenticate(principal, password="wrong", client=HOME)

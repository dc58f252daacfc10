"""Breached passwords: each operation that sets a password looks it up, before it hashes and outside a transaction."""

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from tequipy_auth import Auth, HashingClient, InvalidOneTimeToken, PasswordHash, WeakPassword
from tequipy_auth.testing import FakeBreachedPasswords, FakePasswordHasher, MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, NEW, PASSWORD
from .passwords import log_in, principal_of, reset_token

BREACHED = "a password of a data leak"
Act = Callable[[Auth, MemoryAuthUnitOfWork, str], Awaitable[Callable[[], Awaitable[object]]]]


class Lookup(FakeBreachedPasswords):
    """Checks at each lookup that no transaction is open."""

    def __init__(self, work: MemoryAuthUnitOfWork) -> None:
        super().__init__(BREACHED)
        self._work = work

    async def contains(self, password: str) -> bool:
        assert not self._work._turn.locked(), "a transaction waits for another service"
        return await super().contains(password)


class Hasher(FakePasswordHasher):
    """Records which passwords are hashed."""

    def __init__(self) -> None:
        self.hashed: list[str] = []

    async def hash(self, password: str, client: HashingClient) -> PasswordHash:
        self.hashed.append(password)
        return await super().hash(password, client)


async def registration(auth: Auth, _: MemoryAuthUnitOfWork, new: str) -> Callable[[], Awaitable[object]]:
    return lambda: auth.registration.register(email="bob@example.com", password=new, client=CLIENT)


async def creation(auth: Auth, _: MemoryAuthUnitOfWork, new: str) -> Callable[[], Awaitable[object]]:
    return lambda: auth.registration.create_admin(email="bob@example.com", password=new)


async def reset(auth: Auth, work: MemoryAuthUnitOfWork, new: str) -> Callable[[], Awaitable[object]]:
    token = await reset_token(auth, work)
    return lambda: auth.passwords.reset(token, new_password=new, client=CLIENT)


async def change(auth: Auth, _: MemoryAuthUnitOfWork, new: str) -> Callable[[], Awaitable[object]]:
    principal = await principal_of(auth, await log_in(auth))
    return lambda: auth.passwords.change(principal, current_password=PASSWORD, new_password=new, client=CLIENT)


@pytest.mark.parametrize("mode", ["private", "open"])
@pytest.mark.parametrize("act", [registration, creation, reset, change], ids=lambda act: act.__name__)
async def test_a_breached_password_is_refused_before_it_is_hashed(
    act: Act, mode: Literal["private", "open"], work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """The refused operation stores and hashes nothing; with another password it succeeds, and with an unchecked one."""
    breached, hasher = Lookup(work), Hasher()
    auth = build_fake_auth(work, clock=clock, hasher=hasher, breached_passwords=breached, registration_mode=mode)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    attempt = await act(auth, work, BREACHED)
    before = [list(table) for table in work.tables()]
    hasher.hashed.clear()
    with pytest.raises(WeakPassword) as refusal:
        await attempt()
    assert refusal.value.reasons == ("breached",)
    assert hasher.hashed == []
    assert [list(table) for table in work.tables()] == before
    breached.available = False
    await attempt()
    assert hasher.hashed[-1] == BREACHED


async def test_a_wrong_token_is_refused_without_a_lookup(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """A password is looked up only after the token of a reset was found, so strangers cause no calls by this route."""
    breached = Lookup(work)
    auth = build_fake_auth(work, clock=clock, breached_passwords=breached)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    token = await reset_token(auth, work)
    await auth.passwords.reset(token, new_password=NEW, client=CLIENT)
    breached.asked.clear()
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(token, new_password=BREACHED, client=CLIENT)
    assert breached.asked == []


async def test_a_known_and_a_new_address_cause_the_same_lookups(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """A registration asks once for each address, so that neither time nor traffic reveals an account."""
    breached = Lookup(work)
    auth = build_fake_auth(work, clock=clock, breached_passwords=breached)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    for email in (EMAIL, "new@example.com"):
        breached.asked.clear()
        await auth.registration.register(email=email, password=NEW, client=CLIENT)
        assert breached.asked == [NEW]
        with pytest.raises(WeakPassword):
            await auth.registration.register(email=email, password=BREACHED, client=CLIENT)

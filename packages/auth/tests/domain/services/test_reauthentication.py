"""Reauthentication in a session, and what it allows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import (
    AuditAction,
    Auth,
    AuthPolicy,
    InvalidAccessToken,
    KeyUnusable,
    LoginLocked,
    Principal,
    ReauthRequired,
    RefreshSuperseded,
    SessionRevoked,
)
from tequipy_auth.testing import FakeAccessTokens, MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Unavailable
from tequipy_platform.testing import FrozenClock

from .accounts import MOMENT, PASSWORD
from .attempts import CAFE, HOME, LOCK, fail_again, log_in

pytestmark = pytest.mark.usefixtures("account")


async def test_reauthentication_is_unavailable_without_a_signing_key(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """`reauthenticate` without a usable signing key raises `Unavailable` and leaves the session unchanged."""
    tokens = auth.access_tokens
    assert isinstance(tokens, FakeAccessTokens)
    principal = await auth.access_tokens.verify((await log_in(auth)).access.value)
    sessions = dict(work.sessions.rows)
    clock.advance(timedelta(minutes=1))
    tokens.error = KeyUnusable("it cannot be read")
    with pytest.raises(Unavailable):
        await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    assert work.sessions.rows == sessions


@pytest.fixture
async def principal(auth: Auth) -> Principal:
    return await auth.access_tokens.verify((await log_in(auth)).access.value)


async def test_a_reauthentication_replaces_the_session(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, clock: FrozenClock
) -> None:
    """The new session has the new time, and inherits the time of creation and the absolute expiry."""
    clock.advance(timedelta(hours=1))
    pair = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    renewed = await auth.access_tokens.verify(pair.access.value)
    assert renewed == replace(principal, session_id=renewed.session_id, auth_time=clock.now())
    earlier, new = (work.sessions.rows[each.session_id] for each in (principal, renewed))
    assert (earlier.replaced_by, earlier.revoked_at) == (new.id, clock.now())
    assert new.auth_time == clock.now()
    assert (new.created_at, new.absolute_expires_at) == (earlier.created_at, earlier.absolute_expires_at)
    assert [session.id for session in await auth.sessions.sessions(renewed)] == [new.id]
    (event,) = [event for event in work.audit.events if event.reason == "reauthenticate"]
    assert (event.action, event.session_id) == (AuditAction.LOGIN_OK, new.id)
    with pytest.raises(InvalidAccessToken):
        await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)


@pytest.mark.parametrize("used", [False, True], ids=["the newest token", "a used token"])
async def test_a_copy_of_the_refresh_token_gains_nothing(
    used: bool, auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """For a minute it is superseded, so that another tab is not logged out; later it is refused and audited."""
    pair = await log_in(auth)
    copied = str(pair.refresh)
    if used:
        pair = await auth.sessions.refresh(copied, client=HOME)
    principal = await auth.access_tokens.verify(pair.access.value)
    clock.advance(timedelta(seconds=61))
    new = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    for _ in range(2):
        with pytest.raises(RefreshSuperseded):
            await auth.sessions.refresh(copied, client=CAFE)
        clock.advance(timedelta(seconds=30))
    clock.advance(MOMENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(copied, client=CAFE)
    event = work.audit.events[-1]
    assert (event.action, event.reason, event.client) == (AuditAction.REFRESH_REPLAYED, "replaced", CAFE)
    await auth.sessions.refresh(str(new.refresh), client=HOME)


async def test_a_reauthentication_makes_no_new_device(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """It renews the device mark that it is sent, and otherwise leaves the devices of the account as they are."""
    pair = await log_in(auth)
    devices = dict(work.devices.rows)
    for _ in range(12):
        principal = await auth.access_tokens.verify(pair.access.value)
        pair = await auth.login.reauthenticate(principal, password=PASSWORD, client=CAFE)
        assert pair.device_mark is None
    assert work.devices.rows == devices
    marked = replace(HOME, device_mark=(await log_in(auth)).device_mark)
    principal = await auth.access_tokens.verify(pair.access.value)
    again = await auth.login.reauthenticate(principal, password=PASSWORD, client=marked)
    assert again.device_mark is not None
    assert len(work.devices.rows) == 2


async def test_a_logout_ends_the_session_that_replaced_it(auth: Auth, clock: FrozenClock) -> None:
    """A logout with a token of a replaced session ends the newest one of its successors."""
    first = last = await log_in(auth)
    for _ in range(2):
        clock.advance(MOMENT)
        principal = await auth.access_tokens.verify(last.access.value)
        last = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await auth.sessions.logout(client=HOME, refresh_token=str(first.refresh))
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(last.refresh), client=HOME)


async def test_a_session_has_its_own_counter(auth: Auth, principal: Principal, clock: FrozenClock) -> None:
    """A stolen access token allows five guesses from all clients together; other sessions are not affected."""
    other = await auth.access_tokens.verify((await log_in(auth)).access.value)
    await fail_again(auth, principal, 5)
    for client in (HOME, CAFE):
        with pytest.raises(LoginLocked) as refusal:
            await auth.login.reauthenticate(principal, password=PASSWORD, client=client)
        assert refusal.value.retry_after == 30
    await auth.login.reauthenticate(other, password=PASSWORD, client=HOME)
    await log_in(auth, HOME)
    clock.advance(LOCK)
    pair = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await fail_again(auth, await auth.access_tokens.verify(pair.access.value), 5)


async def test_a_session_that_has_ended_is_not_renewed(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, clock: FrozenClock
) -> None:
    """Reauthentication and sensitive operations refuse a token of an ended session."""
    await work.sessions.revoke(principal.session_id, at=clock.now(), reason="logout")
    with pytest.raises(InvalidAccessToken):
        await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    with pytest.raises(InvalidAccessToken):
        await auth.login.require_fresh(principal)


async def test_a_sensitive_operation_needs_fresh_authentication(
    auth: Auth, principal: Principal, clock: FrozenClock
) -> None:
    """It is allowed for less than five minutes after a login or reauthentication, independent of the token's claims."""
    clock.advance(timedelta(minutes=5) - MOMENT)
    await auth.login.require_fresh(principal)
    clock.advance(MOMENT)
    with pytest.raises(ReauthRequired):
        await auth.login.require_fresh(principal)
    pair = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await auth.login.require_fresh(await auth.access_tokens.verify(pair.access.value))


async def test_an_expired_session_is_not_prolonged(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """An access token that outlives its session's absolute expiry neither begins another session nor is fresh."""
    auth = build_fake_auth(work, clock=clock, policy=AuthPolicy(refresh_absolute=timedelta(minutes=4)))
    principal = await auth.access_tokens.verify((await log_in(auth)).access.value)
    clock.advance(timedelta(minutes=4))
    sessions = dict(work.sessions.rows)
    with pytest.raises(InvalidAccessToken):
        await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    with pytest.raises(InvalidAccessToken):
        await auth.login.require_fresh(principal)
    assert work.sessions.rows == sessions

"""Reauthentication in a session, and what it allows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import AuditAction, Auth, InvalidAccessToken, KeyUnusable, LoginLocked, Principal, ReauthRequired
from tequipy_auth.testing import FakeAccessTokens, MemoryAuthUnitOfWork
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


async def test_a_reauthentication_renews_the_authentication_time(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, clock: FrozenClock
) -> None:
    """The new access token and the session have the new time; the refresh tokens stay unchanged."""
    clock.advance(timedelta(hours=1))
    tokens = dict(work.refresh_tokens.rows)
    token = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    renewed = await auth.access_tokens.verify(token.value)
    assert renewed == replace(principal, auth_time=clock.now())
    assert work.sessions.rows[principal.session_id].auth_time == clock.now()
    assert work.refresh_tokens.rows == tokens
    assert (work.audit.events[-1].action, work.audit.events[-1].reason) == (AuditAction.LOGIN_OK, "reauthenticate")


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
    await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await fail_again(auth, principal, 5)


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
    await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await auth.login.require_fresh(principal)

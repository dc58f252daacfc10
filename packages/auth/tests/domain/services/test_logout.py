"""Logout with each credential, of all sessions, of the other ones and of a single one."""

from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import Auth, InvalidAccessToken, SessionRevoked, TokenPair
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import NotFound
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, PASSWORD
from .sessions import only_session_is_revoked, refresh

pytestmark = pytest.mark.usefixtures("account")


async def test_logout_by_refresh_token_ends_the_session(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """After a logout the refresh token is invalid; a second logout raises no error."""
    for _ in range(2):
        await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    assert only_session_is_revoked(work)
    with pytest.raises(SessionRevoked):
        await refresh(auth, pair)


async def test_logout_by_a_superseded_token_ends_the_session(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """A used refresh token can still end its session."""
    await refresh(auth, await refresh(auth, pair))
    await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    assert only_session_is_revoked(work)


async def test_logout_by_access_token_ends_the_session(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """A client without its refresh token can log out."""
    await auth.sessions.logout(access_token=pair.access.value, client=CLIENT)
    assert only_session_is_revoked(work)


async def test_logout_ends_the_sessions_of_both_credentials(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """Two valid credentials of two sessions end both."""
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.sessions.logout(refresh_token=str(pair.refresh), access_token=other.access.value, client=CLIENT)
    assert all(session.revoked_at for session in work.sessions.rows.values())


async def test_logout_without_a_valid_credential_is_no_error(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """Invalid or missing credentials end no session."""
    await auth.sessions.logout(refresh_token="rt1.x.y", access_token="x", client=CLIENT)
    await auth.sessions.logout(client=CLIENT)
    assert not only_session_is_revoked(work)
    await refresh(auth, pair)


async def test_a_logout_during_the_grace_is_not_undone(
    auth: Auth, pair: TokenPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A used token that is presented during the logout gets no successor."""
    successor = await refresh(auth, pair)
    prepare = auth.sessions._derive_successor

    async def log_out_meanwhile(*arguments: Any) -> Any:
        await auth.sessions.logout(refresh_token=str(successor.refresh), client=CLIENT)
        return await prepare(*arguments)

    monkeypatch.setattr(auth.sessions, "_derive_successor", log_out_meanwhile)
    with pytest.raises(SessionRevoked):
        await refresh(auth, pair)


async def test_logging_out_everywhere(auth: Auth, pair: TokenPair) -> None:
    """Every session of the caller ends with its access tokens; sessions of others continue."""
    await auth.registration.create_admin(email="eve@example.com", password=PASSWORD)
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    theirs = await auth.login.with_password(email="eve@example.com", password=PASSWORD, client=CLIENT)
    await auth.sessions.logout_all(await auth.access_tokens.verify(pair.access.value), client=CLIENT)
    for each in (pair, other):
        with pytest.raises(InvalidAccessToken):
            await auth.access_tokens.verify(each.access.value)
        with pytest.raises(SessionRevoked):
            await refresh(auth, each)
    await auth.access_tokens.verify(theirs.access.value)


async def test_logging_out_the_others(auth: Auth, pair: TokenPair) -> None:
    """The caller's current session continues."""
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    principal = await auth.access_tokens.verify(pair.access.value)
    await auth.sessions.logout_others(principal, client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(other.access.value)
    assert [session.id for session in await auth.sessions.sessions(principal)] == [principal.session_id]
    await refresh(auth, pair)


async def test_only_the_owner_can_end_a_session(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """Ending a session works once; sessions of others, expired and unknown ones are not found."""
    await auth.registration.create_admin(email="eve@example.com", password=PASSWORD)
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    theirs = await auth.login.with_password(email="eve@example.com", password=PASSWORD, client=CLIENT)
    principal, second, eve = [await auth.access_tokens.verify(each.access.value) for each in (pair, other, theirs)]
    await auth.sessions.revoke(principal, second.session_id, client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(other.access.value)
    for unknown in (second.session_id, eve.session_id, eve.user_id):
        with pytest.raises(NotFound):
            await auth.sessions.revoke(principal, unknown, client=CLIENT)
    clock.advance(timedelta(days=7))
    with pytest.raises(NotFound):
        await auth.sessions.revoke(principal, principal.session_id, client=CLIENT)

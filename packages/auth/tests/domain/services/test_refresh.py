"""Refresh tokens: rotation, the grace period and its successor, and tokens that are refused."""

import asyncio
import string
from dataclasses import replace

import pytest

from tequipy_auth import (
    Auth,
    RefreshInvalid,
    RefreshReused,
    RefreshSuperseded,
    RefreshTokenValue,
    SessionRevoked,
    TokenPair,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, MOMENT
from .sessions import GRACE, only_session_is_revoked, refresh

pytestmark = pytest.mark.usefixtures("account")


async def test_every_refresh_rotates(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """Each refresh returns a new token of the same session."""
    second = await refresh(auth, pair)
    third = await refresh(auth, second)
    assert len({str(each.refresh) for each in (pair, second, third)}) == 3
    sessions = {(await auth.access_tokens.verify(each.access.value)).session_id for each in (pair, second, third)}
    assert sessions == set(work.sessions.rows)


async def test_parallel_refreshes_return_the_same_successor(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """20 concurrent refreshes of one token are one rotation with one successor."""
    pairs = await asyncio.gather(*(refresh(auth, pair) for _ in range(20)))
    assert len({str(each.refresh) for each in pairs}) == 1
    assert len(work.refresh_tokens.rows) == 2
    await refresh(auth, pairs[0])


async def test_a_lost_response_can_be_requested_again_within_the_grace_period(
    auth: Auth, pair: TokenPair, clock: FrozenClock
) -> None:
    """A used token returns its unused successor until the end of the grace period, inclusive."""
    second = await refresh(auth, pair)
    clock.advance(GRACE)
    again = await refresh(auth, pair)
    assert str(again.refresh) == str(second.refresh)
    await refresh(auth, again)


async def test_a_token_with_a_used_successor_is_superseded(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock
) -> None:
    """Within the grace period a token with a used successor is superseded, and nothing changes."""
    second = await refresh(auth, pair)
    third = await refresh(auth, second)
    clock.advance(GRACE)
    with pytest.raises(RefreshSuperseded):
        await refresh(auth, pair)
    assert not only_session_is_revoked(work)
    await refresh(auth, third)


async def test_the_grace_period_starts_with_the_first_use(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """Repeated use does not extend the grace period, so that a thief cannot follow the owner for ever."""
    await refresh(auth, pair)
    clock.advance(GRACE)
    await refresh(auth, pair)
    clock.advance(MOMENT)
    with pytest.raises(RefreshReused):
        await refresh(auth, pair)


@pytest.mark.parametrize(
    "text", ["", "rt1.x.y", "ev1." + "A" * 22 + "." + "A" * 43, "rt1." + "A" * 22 + "." + "B" * 43]
)
async def test_invalid_refresh_tokens_get_the_same_answer(auth: Auth, text: str) -> None:
    """Malformed, foreign, non-canonical and unknown tokens get the same answer."""
    with pytest.raises(RefreshInvalid):
        await auth.sessions.refresh(text, client=CLIENT)


async def test_a_refresh_token_has_one_spelling(auth: Auth, pair: TokenPair) -> None:
    """A token whose last base64url character has unused bits set is refused (RFC 4648, section 3.5)."""
    prefix, selector, secret = str(pair.refresh).split(".")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    other = selector[:-1] + alphabet[alphabet.index(selector[-1]) + 1]
    with pytest.raises(RefreshInvalid):
        await auth.sessions.refresh(f"{prefix}.{other}.{secret}", client=CLIENT)
    await refresh(auth, pair)


async def test_a_wrong_secret_does_not_use_the_token(auth: Auth, pair: TokenPair) -> None:
    """Guessing a token's secret neither rotates it nor ends the session."""
    with pytest.raises(RefreshInvalid):
        await auth.sessions.refresh(str(RefreshTokenValue.new(pair.refresh.id, bytes(32))), client=CLIENT)
    await refresh(auth, pair)


async def test_a_session_revoked_during_the_refresh_stays_revoked(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """A logout between the reading and the rotation takes precedence, and the rotation is rolled back."""
    refreshing = asyncio.create_task(refresh(auth, pair))
    await asyncio.sleep(0)  # at this point the refresh has read its rows and is hashing
    for session in work.sessions.rows.values():
        await work.sessions.revoke(session.id, at=session.created_at, reason="logout")
    with pytest.raises(SessionRevoked):
        await refreshing
    assert len(work.refresh_tokens.rows) == 1


async def test_a_removed_server_key_ends_no_session(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """Without the server key the successor cannot be derived again: the token is superseded."""
    second = await refresh(auth, pair)
    child = work.refresh_tokens.rows[second.refresh.id]
    work.refresh_tokens.rows[child.id] = replace(child, key_version=99)
    with pytest.raises(RefreshSuperseded):
        await refresh(auth, pair)
    await refresh(auth, second)

"""Sessions: start, expiry, their highest number, and the publication of revocations."""

from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import AuditAction, AuditEvent, Auth, InvalidAccessToken, RefreshExpired, SessionRevoked, TokenPair
from tequipy_auth.testing import MemoryAuthUnitOfWork, MemoryRevocations, RecordingOperations, build_fake_auth
from tequipy_platform import Delivery
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, MOMENT, PASSWORD
from .sessions import refresh

pytestmark = pytest.mark.usefixtures("account")


async def test_a_login_starts_a_session(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock
) -> None:
    """The session contains the client; the access token names user, session and authentication method."""
    (user,), (session,) = work.users.rows.values(), work.sessions.rows.values()
    principal = await auth.access_tokens.verify(pair.access.value)
    assert (principal.user_id, principal.session_id, principal.roles) == (user.id, session.id, ("admin",))
    assert (principal.amr, principal.auth_time, principal.version) == (("pwd",), clock.now(), 1)
    assert session.client == CLIENT
    assert pair.refresh_expires_in == 7 * 86400
    assert pair.refresh.secret not in repr(list(work.refresh_tokens.rows.values()))


async def test_an_idle_session_ends(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """A session ends after seven days without a refresh."""
    clock.advance(timedelta(days=7) - MOMENT)
    second = await refresh(auth, pair)
    clock.advance(timedelta(days=7))
    with pytest.raises(RefreshExpired):
        await refresh(auth, second)


async def test_no_session_outlives_its_absolute_end(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """A session ends thirty days after the login, and the cookie's max-age reflects that."""
    for _ in range(4):
        clock.advance(timedelta(days=6))
        pair = await refresh(auth, pair)
    clock.advance(timedelta(days=5))
    pair = await refresh(auth, pair)
    assert pair.refresh_expires_in == 86400
    clock.advance(timedelta(days=1))
    with pytest.raises(RefreshExpired):
        await refresh(auth, pair)


async def test_a_further_session_ends_the_oldest(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """With twenty sessions, each further login ends the oldest session with its access token."""
    pairs = []
    for _ in range(22):
        pairs.append(await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT))
        clock.advance(MOMENT)
    for pair in pairs[:2]:
        with pytest.raises(InvalidAccessToken):
            await auth.access_tokens.verify(pair.access.value)
    principals = [await auth.access_tokens.verify(pair.access.value) for pair in pairs[2:]]
    assert len(await auth.sessions.sessions(principals[0])) == 20
    assert list(work.sessions.reasons.values()) == ["too_many_sessions"] * 2


async def test_revoked_ids_are_published_directly_and_by_a_task(
    work: MemoryAuthUnitOfWork, clock: FrozenClock, auth: Auth, pair: TokenPair
) -> None:
    """The revoked ids are published at once, and by a task of the same transaction in case the process dies."""
    await auth.sessions.logout(access_token=pair.access.value, client=CLIENT)
    (task,) = [task for task in work.outbox.tasks if task.task == "auth.publish_revocations"]
    (session,) = work.sessions.rows.values()
    assert task.payload == {"members": [f"sid:{session.id}"]}
    revocations = MemoryRevocations(clock, ttl=timedelta(seconds=930))
    other = build_fake_auth(work, clock=clock, revocations=revocations)
    await other.session_issuer.publish_revocations(Delivery(session.id, task.task), members=[f"sid:{session.id}"])
    assert await revocations.contains_any([f"sid:{session.id}"])
    await auth.sessions.logout(access_token=pair.access.value, client=CLIENT)
    assert len([task for task in work.outbox.tasks if task.task == "auth.publish_revocations"]) == 1


async def test_session_operations_are_audited_and_counted(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, operations: RecordingOperations
) -> None:
    """Refreshes and revocations are audited with user and client; every call is counted with its outcome."""
    pair = await refresh(auth, pair)
    await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    with pytest.raises(SessionRevoked):
        await refresh(auth, pair)
    (user,), (session,) = work.users.rows.values(), work.sessions.rows.values()
    known: Any = {"actor_id": user.id, "subject_id": user.id, "session_id": session.id, "client": CLIENT}
    assert work.audit.events[-2:] == [
        AuditEvent(AuditAction.TOKEN_REFRESHED, **known),
        AuditEvent(AuditAction.LOGOUT, reason="logout", **known),
    ]
    counted = {key: count for key, count in operations.counts.items() if key[0] in {"refresh", "logout"}}
    assert counted == {("refresh", "ok"): 1, ("refresh", "session_revoked"): 1, ("logout", "ok"): 1}

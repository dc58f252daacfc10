"""Copied refresh tokens: how a replay is audited, and how theft is detected, ends the session and is reported."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import (
    AuditAction,
    AuditEvent,
    Auth,
    Client,
    InvalidAccessToken,
    Outcome,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
    TokenPair,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import JSON
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, MOMENT
from .sessions import GRACE, only_session_is_revoked, refresh

pytestmark = pytest.mark.usefixtures("account")


@pytest.mark.parametrize(
    ("client", "changed"),
    [
        (CLIENT, []),
        (Client("198.51.100.7", "test"), ["client_address"]),
        (Client("192.0.2.1", "curl"), ["user_agent"]),
        (Client("198.51.100.7", "curl"), ["client_address", "user_agent"]),
    ],
)
async def test_a_replay_from_elsewhere_is_audited(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, client: Client, changed: list[JSON]
) -> None:
    """A successor that is returned again to another client address or user agent is audited without an actor."""
    first = await auth.sessions.refresh(str(pair.refresh), client=replace(CLIENT, device_mark="a mark"))
    again = await auth.sessions.refresh(str(pair.refresh), client=client)
    assert str(again.refresh) == str(first.refresh)
    (session,) = work.sessions.rows.values()
    replayed = [event for event in work.audit.events if event.action == "refresh_replayed"]
    expected = AuditEvent(
        AuditAction.REFRESH_REPLAYED,
        subject_id=session.user_id,
        session_id=session.id,
        client=client,
        metadata={"changed": changed},
    )
    assert replayed == ([expected] if changed else [])


async def test_a_replay_is_compared_with_the_first_use_of_the_token(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """A network that changed after the login causes no audit event; IPv6 addresses are compared by /64."""
    train, seat = Client("2001:db8::1", "test"), Client("2001:db8::2", "test")
    for _ in range(2):
        second = await auth.sessions.refresh(str(pair.refresh), client=train)
        await auth.sessions.refresh(str(pair.refresh), client=seat)
        pair = second
    assert AuditAction.REFRESH_REPLAYED not in {event.action for event in work.audit.events}


async def test_a_superseded_token_is_no_replay(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """A superseded token returns no token, so nothing is audited."""
    await refresh(auth, await refresh(auth, pair))
    with pytest.raises(RefreshSuperseded):
        await auth.sessions.refresh(str(pair.refresh), client=Client("198.51.100.7", "curl"))
    assert AuditAction.REFRESH_REPLAYED not in {event.action for event in work.audit.events}


@pytest.mark.parametrize("child_used", [False, True])
async def test_a_used_token_after_the_grace_is_theft(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock, child_used: bool
) -> None:
    """After the grace period a used token ends the session, whether its successor was used or not."""
    second = await refresh(auth, pair)
    latest = await refresh(auth, second) if child_used else second
    clock.advance(GRACE + MOMENT)
    with pytest.raises(RefreshReused):
        await refresh(auth, pair)
    assert only_session_is_revoked(work), "committed although the answer is an error"
    assert list(work.sessions.reasons.values()) == ["refresh_reused"]
    with pytest.raises(SessionRevoked):
        await refresh(auth, latest)


async def test_theft_is_audited_and_reported_to_the_owner(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock
) -> None:
    """A reused token is audited without an actor, ends the access tokens and sends a mail."""
    second = await refresh(auth, pair)
    clock.advance(GRACE + MOMENT)
    thief = Client("203.0.113.66", "curl")
    with pytest.raises(RefreshReused):
        await auth.sessions.refresh(str(pair.refresh), client=thief)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(second.access.value)
    (user,), (session,) = work.users.rows.values(), work.sessions.rows.values()
    assert work.audit.events[-2:] == [
        AuditEvent(
            AuditAction.REFRESH_REUSE_DETECTED,
            Outcome.FAILURE,
            reason="refresh_reused",
            subject_id=user.id,
            session_id=session.id,
            client=thief,
        ),
        AuditEvent(
            AuditAction.SESSION_REVOKED,
            reason="refresh_reused",
            subject_id=user.id,
            session_id=session.id,
            client=thief,
        ),
    ]
    mails = [task.payload for task in work.outbox.tasks if task.task == "auth.send_mail"]
    assert mails == [{"mail": "session_stolen", "subject_id": str(user.id)}]


async def test_a_copied_token_is_detected_after_the_grace_period(
    auth: Auth, pair: TokenPair, clock: FrozenClock
) -> None:
    """The session ends when a thief uses a copied token after the grace period."""
    owner = await refresh(auth, pair)
    clock.advance(GRACE)
    # Within the grace period the thief gets the owner's successor, like a tab that lost the response.
    thief = await refresh(auth, pair)
    assert thief.refresh == owner.refresh
    owner = await refresh(auth, owner)
    clock.advance(GRACE + MOMENT)
    with pytest.raises(RefreshReused):
        await refresh(auth, thief)
    with pytest.raises(SessionRevoked):
        await refresh(auth, owner)


async def test_a_copied_token_is_detected_when_both_use_the_successor(
    auth: Auth, pair: TokenPair, clock: FrozenClock
) -> None:
    """A thief within the grace period gets the same successor as the owner; its second use reveals the theft."""
    await refresh(auth, pair)
    copied = await refresh(auth, pair)  # the thief, within the grace period: the same token
    ahead = await refresh(auth, copied)
    clock.advance(timedelta(minutes=14))
    with pytest.raises(RefreshReused):
        await refresh(auth, copied)  # the owner
    with pytest.raises(SessionRevoked):
        await refresh(auth, ahead)


async def test_a_slow_database_does_not_look_like_theft(
    auth: Auth, pair: TokenPair, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace period is compared with the arrival of the request, not with the time of the transaction."""
    second = await refresh(auth, pair)
    find = auth.sessions._find_token

    async def hang(token: str) -> Any:
        clock.advance(timedelta(minutes=5))
        return await find(token)

    clock.advance(GRACE)
    monkeypatch.setattr(auth.sessions, "_find_token", hang)
    assert (await refresh(auth, pair)).refresh == second.refresh

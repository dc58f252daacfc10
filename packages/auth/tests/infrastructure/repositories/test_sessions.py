"""The repository of sessions: one contract suite for memory and PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import Session
from tequipy_auth.infrastructure.models import SessionRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork

from .entities import HOUR, NOW, Work, make_session, make_user, new_id


async def test_a_session_is_revoked_once(work: Work, session: Session) -> None:
    """The first revocation of a session is kept; that of a missing one returns False."""
    later = NOW + HOUR
    async with work() as unit:
        assert await unit.sessions.revoke(session.id, at=later, reason="logout")
        assert not await unit.sessions.revoke(session.id, at=later + HOUR, reason="logout")
        assert await unit.sessions.get(session.id) == replace(session, revoked_at=later)
        assert not await unit.sessions.revoke(new_id(), at=NOW, reason="logout")


@pytest.mark.parametrize("work", ["postgresql"], indirect=True)
async def test_rows_are_read_in_their_current_state(work: Work, session: Session) -> None:
    """Values that the SQLAlchemy session has cached are not returned."""
    async with work() as unit:
        assert isinstance(unit, SqlAuthUnitOfWork)
        seen = await unit.session.get(SessionRow, session.id)
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
        assert await unit.sessions.get(session.id) == replace(session, revoked_at=NOW)
        assert seen is not None


async def test_all_sessions_of_an_account_are_revoked(work: Work, session: Session) -> None:
    """All live sessions of the account except `keep` are revoked and returned."""
    second, third, ended = (make_session(session.user_id) for _ in range(3))
    stranger = make_user("eve@example.com")
    theirs = make_session(stranger.id)
    async with work() as unit:
        await unit.users.add(stranger)
        for each in (second, third, ended, theirs):
            await unit.sessions.add(each)
        await unit.sessions.revoke(ended.id, at=NOW, reason="logout")
    async with work() as unit:
        assert set(await unit.sessions.revoke_all(session.user_id, keep=third.id, at=NOW, reason="test")) == {
            session.id,
            second.id,
        }
    async with work() as unit:
        assert [each.id for each in await unit.sessions.live_of(session.user_id, at=NOW)] == [third.id]
        assert list(await unit.sessions.revoke_all(session.user_id, at=NOW, reason="test")) == [third.id]
        assert [each.id for each in await unit.sessions.live_of(stranger.id, at=NOW)] == [theirs.id]


async def test_live_sessions_are_those_that_have_not_ended(work: Work, session: Session) -> None:
    """Live sessions are neither revoked nor expired; the latest login comes first."""
    newer = replace(make_session(session.user_id), created_at=NOW + timedelta(minutes=1))
    idle = replace(make_session(session.user_id), idle_expires_at=NOW)
    over = replace(make_session(session.user_id), absolute_expires_at=NOW)
    async with work() as unit:
        for each in (newer, idle, over):
            await unit.sessions.add(each)
    async with work() as unit:
        assert [each.id for each in await unit.sessions.live_of(session.user_id, at=NOW)] == [newer.id, session.id]
        assert await unit.sessions.live_of(session.user_id, at=NOW + HOUR) == []


async def test_recent_revocations_are_returned(work: Work, session: Session) -> None:
    """The store returns the sessions and account versions that were revoked after a time."""
    old, recent = NOW - HOUR, NOW - timedelta(minutes=1)
    before, stranger = make_session(session.user_id), make_user("eve@example.com")
    async with work() as unit:
        await unit.users.add(stranger)
        await unit.sessions.add(before)
        await unit.sessions.revoke(before.id, at=old, reason="test")
        await unit.sessions.revoke(session.id, at=recent, reason="test")
        assert await unit.users.supersede(session.user_id, at=old) == 2
        assert await unit.users.supersede(stranger.id, at=recent) == 2
        assert await unit.users.supersede(stranger.id, at=recent) == 3
        assert await unit.users.supersede(new_id(), at=recent) is None
    async with work() as unit:
        assert await unit.sessions.revoked_since(NOW - HOUR / 2) == {session.id: recent}
        assert await unit.users.superseded_since(NOW - HOUR / 2) == {stranger.id: (4, recent)}
        assert await unit.sessions.revoked_since(recent) == {}
        changed = await unit.users.get(stranger.id)
    assert changed is not None
    assert changed.version == 4


async def test_only_a_live_session_is_replaced(work: Work, session: Session) -> None:
    """A session is replaced once; a revoked or missing one is not."""
    successor, other = new_id(), new_id()
    async with work() as unit:
        assert await unit.sessions.replace(session.id, by=successor, at=NOW + HOUR)
        assert await unit.sessions.get(session.id) == replace(session, revoked_at=NOW + HOUR, replaced_by=successor)
        assert not await unit.sessions.replace(session.id, by=other, at=NOW + HOUR)
        assert not await unit.sessions.revoke(session.id, at=NOW + HOUR, reason="logout")
        assert not await unit.sessions.replace(new_id(), by=other, at=NOW)


async def test_all_sessions_of_an_account_are_returned(work: Work, session: Session) -> None:
    """Those that have ended too, the latest login first."""
    later = replace(make_session(session.user_id), created_at=session.created_at + HOUR)
    async with work() as unit:
        await unit.sessions.add(later)
        await unit.sessions.revoke(later.id, at=NOW, reason="logout")
    async with work() as unit:
        assert [found.id for found in await unit.sessions.all_of(session.user_id)] == [later.id, session.id]
        assert list(await unit.sessions.all_of(new_id())) == []

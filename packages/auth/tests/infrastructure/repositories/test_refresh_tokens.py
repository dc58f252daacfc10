"""The repository of refresh tokens: one contract suite for memory and PostgreSQL."""

import asyncio
from dataclasses import replace

import pytest

from tequipy_auth import AuthUnitOfWork, Client, RefreshToken, Session
from tequipy_auth.domain.repositories import RotationOutcome
from tequipy_platform.database import Database

from .entities import HOUR, NOW, Work, eventually_waiting, make_refresh_token, make_session, new_id

PHONE = Client("2001:db8::1", "phone")


async def rotate(unit: AuthUnitOfWork, child: RefreshToken, client: Client = PHONE) -> RotationOutcome:
    return await unit.refresh_tokens.rotate(child, at=NOW + HOUR, idle_expires_at=NOW + 2 * HOUR, client=client)


async def test_a_token_is_rotated_once(work: Work, session: Session) -> None:
    """One of 10 concurrent rotations succeeds: the parent is used, its child exists, and the session has the client."""
    token = make_refresh_token(session)
    children = [make_refresh_token(session, token.id) for _ in range(10)]
    async with work() as unit:
        await unit.refresh_tokens.add(token)

    async def in_own_transaction(child: RefreshToken) -> RotationOutcome:
        async with work() as unit:
            return await rotate(unit, child, replace(PHONE, device_mark="a mark"))

    outcomes = await asyncio.gather(*map(in_own_transaction, children))
    assert sorted(outcome.value for outcome in outcomes) == ["rotated", *["used"] * 9]
    async with work() as unit:
        assert await unit.refresh_tokens.get(token.id) == replace(token, used_at=NOW + HOUR)
        assert await unit.refresh_tokens.child_of(token.id) == children[outcomes.index(RotationOutcome.ROTATED)]
        touched = replace(session, last_used_at=NOW + HOUR, idle_expires_at=NOW + 2 * HOUR, last_client=PHONE)
        assert await unit.sessions.get(session.id) == touched


async def test_an_unknown_token_is_not_rotated(work: Work, session: Session) -> None:
    """A parent that does not exist gets no child."""
    child = make_refresh_token(session, new_id())
    async with work() as unit:
        assert await rotate(unit, child) is RotationOutcome.USED
        assert await unit.refresh_tokens.get(child.id) is None


async def test_a_token_of_a_revoked_session_gets_no_child(work: Work, session: Session) -> None:
    """A revoked session is not changed, and its token gets no child."""
    token, revoked = make_refresh_token(session), replace(session, revoked_at=NOW)
    child = make_refresh_token(session, token.id)
    async with work() as unit:
        await unit.refresh_tokens.add(token)
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
    async with work() as unit:
        assert await rotate(unit, child) is RotationOutcome.REVOKED
        assert await unit.refresh_tokens.get(child.id) is None
        assert await unit.sessions.get(session.id) == revoked


@pytest.mark.parametrize("work", ["postgresql"], indirect=True)
async def test_a_rotation_waits_for_a_revocation_that_runs(work: Work, session: Session, database: Database) -> None:
    """A revocation that commits while a rotation waits for it wins: the token gets no child."""
    token = make_refresh_token(session)
    async with work() as unit:
        await unit.refresh_tokens.add(token)

    async def in_own_transaction() -> RotationOutcome:
        async with work() as unit:
            return await rotate(unit, make_refresh_token(session, token.id))

    async with work() as unit:
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
        rotating = asyncio.create_task(in_own_transaction())
        await eventually_waiting(database)
    assert await rotating is RotationOutcome.REVOKED


async def test_a_rolled_back_rotation_leaves_the_token_unused(work: Work, session: Session) -> None:
    """An error after the rotation leaves the token unused."""
    token = make_refresh_token(session)
    async with work() as unit:
        await unit.refresh_tokens.add(token)

    async def fail() -> None:
        async with work() as unit:
            assert await rotate(unit, make_refresh_token(session, token.id)) is RotationOutcome.ROTATED
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with work() as unit:
        assert await rotate(unit, make_refresh_token(session, token.id)) is RotationOutcome.ROTATED


async def test_a_token_is_read_with_its_owner(work: Work, session: Session) -> None:
    """A token is returned with its session and account in their current state; a missing token returns None."""
    token = make_refresh_token(session)
    async with work() as unit:
        await unit.refresh_tokens.add(token)
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
        user = await unit.users.get(session.user_id)
        assert await unit.refresh_tokens.with_owner(token.id) == (token, replace(session, revoked_at=NOW), user)
        assert await unit.refresh_tokens.with_owner(new_id()) is None


async def test_a_parent_has_one_child(work: Work, session: Session) -> None:
    """A second child of one parent raises an error."""
    parent = make_refresh_token(session)
    child = make_refresh_token(session, parent.id)
    async with work() as unit:
        await unit.refresh_tokens.add(parent)
        await unit.refresh_tokens.add(child)
    with pytest.raises(Exception, match="parent"):
        async with work() as unit:
            await unit.refresh_tokens.add(make_refresh_token(session, parent.id))
    async with work() as unit:
        assert await unit.refresh_tokens.child_of(parent.id) == child


async def test_a_session_starts_with_its_first_token(work: Work, session: Session) -> None:
    """Session, token and time of the login are stored; the number is that of the account's other live sessions."""
    first, later = make_session(session.user_id), NOW + HOUR / 2
    second = replace(make_session(session.user_id), auth_time=later, last_used_at=later)
    ended = replace(make_session(session.user_id), idle_expires_at=NOW)
    tokens = [make_refresh_token(each) for each in (first, second)]
    async with work() as unit:
        await unit.sessions.add(ended)
        assert await unit.refresh_tokens.start(first, tokens[0]) == 1
        assert await unit.refresh_tokens.start(second, tokens[1]) == 2
    async with work() as unit:
        assert await unit.sessions.get(second.id) == second
        assert await unit.refresh_tokens.get(tokens[1].id) == tokens[1]
        user = await unit.users.get(session.user_id)
    assert user is not None
    assert user.last_login_at == later

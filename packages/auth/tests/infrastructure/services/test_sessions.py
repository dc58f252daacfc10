"""Refreshes on PostgreSQL: parallel ones, replays and theft."""

import asyncio

import pytest
from sqlalchemy import func, select

from tequipy_auth import AuditAction, Auth, Client, RefreshReused, SessionRevoked
from tequipy_auth.infrastructure.models import AuditEventRow, RefreshTokenRow
from tequipy_platform.database import Database

from .processes import CLIENT, EMAIL, PASSWORD, make_auth


async def test_parallel_refreshes_are_one_rotation(auth: Auth, database: Database) -> None:
    """20 refreshes of one token in two processes return the same successor, which then works."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    async with make_auth(database) as other:
        services = [auth.sessions, other.sessions] * 10
        pairs = await asyncio.gather(*(service.refresh(str(pair.refresh), client=CLIENT) for service in services))
    assert len({str(each.refresh) for each in pairs}) == 1
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(RefreshTokenRow)) == 2
    await auth.sessions.refresh(str(pairs[0].refresh), client=CLIENT)


async def test_a_replay_from_elsewhere_is_audited(auth: Auth, database: Database) -> None:
    """The client of the first refresh is stored across processes, and a replay by another client is audited."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    async with make_auth(database) as other:
        await other.sessions.refresh(str(pair.refresh), client=CLIENT)
        await other.sessions.refresh(str(pair.refresh), client=Client("198.51.100.7", "curl"))
    async with database.sessions() as session:
        rows = list(
            await session.scalars(select(AuditEventRow).where(AuditEventRow.action == AuditAction.REFRESH_REPLAYED))
        )
    shown = [(row.ip, row.user_agent, row.outcome, row.details) for row in rows]
    assert shown == [("198.51.100.7", "curl", "success", {"changed": ["client_address", "user_agent"]})]


async def test_theft_ends_the_session_for_good(database: Database) -> None:
    """A used token after the grace period revokes the session, and the revocation is committed."""
    async with make_auth(database, policy={"refresh_grace": 0}) as auth:
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
        pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
        second = await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
        with pytest.raises(RefreshReused):
            await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
        with pytest.raises(SessionRevoked):
            await auth.sessions.refresh(str(second.refresh), client=CLIENT)

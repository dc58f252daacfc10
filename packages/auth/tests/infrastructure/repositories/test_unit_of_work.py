"""The unit of work: what a commit stores and an error rolls back, with memory and PostgreSQL."""

import pytest
from sqlalchemy import QueuePool, text
from sqlalchemy.exc import DBAPIError

from tequipy_auth import AuditAction, AuditEvent, AuthUnitOfWork, Client, Session
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.testing import FrozenClock

from .entities import NOW, VERIFY, Work, make_refresh_token, make_registration, make_session, make_user, new_id


async def test_stored_entities_are_returned(work: Work, session: Session) -> None:
    """Every entity is returned unchanged in a later unit of work."""
    registration, user, token = make_registration(), make_user(), make_refresh_token(session)
    child = make_refresh_token(session, token.id)
    anonymous = make_session(user.id, Client())
    async with work() as unit:
        await unit.registrations.add(registration)
        await unit.users.add(user)
        await unit.sessions.add(anonymous)
        await unit.refresh_tokens.add(token)
        await unit.refresh_tokens.add(child)
    async with work() as unit:
        assert await unit.registrations.get(registration.id) == registration
        assert await unit.users.get(user.id) == user
        assert await unit.users.by_email("ada@example.com") == user
        assert await unit.sessions.get(session.id) == session
        assert await unit.sessions.get(anonymous.id) == anonymous
        assert await unit.refresh_tokens.get(token.id) == token
        assert await unit.refresh_tokens.child_of(token.id) == child


async def test_unknown_entities_are_none(work: Work) -> None:
    """Unknown ids and addresses return None and never raise an error."""
    async with work() as unit:
        assert await unit.registrations.get(new_id()) is None
        assert await unit.users.get(new_id()) is None
        assert await unit.users.by_email("nobody@example.com") is None
        assert await unit.sessions.get(new_id()) is None
        assert await unit.refresh_tokens.get(new_id()) is None
        assert await unit.refresh_tokens.child_of(new_id()) is None
        assert await unit.one_time_tokens.consume(new_id(), VERIFY, b"hash", at=NOW) is None


async def test_an_error_rolls_everything_back(work: Work) -> None:
    """A unit of work that ends with an exception stores nothing, also not in the outbox."""
    user, registration = make_user(), make_registration()

    async def fail() -> None:
        async with work() as unit:
            await unit.users.add(user)
            await unit.registrations.add(registration)
            unit.outbox.add("auth.send_mail")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with work() as unit:
        assert await unit.users.get(user.id) is None
        assert await unit.registrations.get(registration.id) is None
        assert not await outbox_tasks(unit)


async def test_an_audit_event_that_cannot_be_stored_rolls_everything_back(database: Database) -> None:
    """Nothing is stored without its audit event, and the connection is in the pool again."""
    unit, user = SqlAuthUnitOfWork(database, FrozenClock(), new_id), make_user()

    async def fail() -> None:
        async with unit:
            await unit.users.add(user)
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK, reason="\0"))  # PostgreSQL refuses the character

    with pytest.raises(DBAPIError):
        await fail()
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    async with SqlAuthUnitOfWork(database, FrozenClock(), new_id) as later:
        assert await later.users.get(user.id) is None


async def test_a_commit_stores_the_outbox_too(work: Work) -> None:
    """Outbox rows are stored with the other rows."""
    async with work() as unit:
        unit.outbox.add("auth.send_mail", mail="registration")
    async with work() as unit:
        assert await outbox_tasks(unit) == ["auth.send_mail"]


async def outbox_tasks(unit: AuthUnitOfWork) -> list[str]:
    if isinstance(unit, SqlAuthUnitOfWork):
        return list(await unit.session.scalars(text("select task from platform.outbox")))
    assert isinstance(unit, MemoryAuthUnitOfWork)
    return [added.task for added in unit.outbox.tasks]

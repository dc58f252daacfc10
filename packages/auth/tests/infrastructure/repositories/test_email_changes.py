"""The repository of changes of address, and addresses that are taken: one contract suite for memory and PostgreSQL."""

import asyncio
from datetime import timedelta

import pytest

from tequipy_auth import EmailAddress, EmailChange, EmailChangeState, EmailTaken, OneTimeToken, Purpose, User
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.testing import FrozenClock

from .entities import HOUR, NOW, Work, eventually_waiting, make_user, new_id

ADA, BOB, EVE = (EmailAddress(f"{name}@Example.com", f"{name.lower()}@example.com") for name in ("Ada", "Bob", "Eve"))


def make_change(user: User, number: int, state: EmailChangeState = EmailChangeState.PENDING) -> EmailChange:
    return EmailChange(new_id(), user.id, number, ADA, BOB, NOW, NOW + HOUR, state)


@pytest.fixture
async def user(work: Work) -> User:
    user = make_user(EVE.canonical)
    async with work() as unit:
        await unit.users.add(user)
    return user


async def test_changes_are_stored_in_order(work: Work, user: User) -> None:
    """An account's changes are returned the latest first, with all values; deleted ones are gone."""
    changes = [make_change(user, number) for number in (2, 1, 3)]
    other = make_user("other@example.com")
    async with work() as unit:
        await unit.users.add(other)
        for each in (*changes, make_change(other, 1)):
            await unit.email_changes.add(each)
    async with work() as unit:
        assert list(await unit.email_changes.of(user.id)) == [changes[2], changes[0], changes[1]]
        assert await unit.email_changes.get(changes[0].id) == changes[0]
        await unit.email_changes.delete(changes[0].id)
        assert await unit.email_changes.get(changes[0].id) is None


async def test_the_latest_pending_changes_are_kept(work: Work, user: User) -> None:
    """`close_pending` closes the older pending ones, and changes no other state."""
    changes = [make_change(user, number) for number in range(1, 5)]
    async with work() as unit:
        for each in changes:
            await unit.email_changes.add(each)
        await unit.email_changes.set_state(changes[3].id, EmailChangeState.CONFIRMED)
        await unit.email_changes.close_pending(user.id, keep=2)
        states = [each.state.value for each in await unit.email_changes.of(user.id)]
        assert states == ["confirmed", "pending", "pending", "closed"]
        await unit.email_changes.close_pending(user.id)
        states = [each.state.value for each in await unit.email_changes.of(user.id)]
        assert states == ["confirmed", "closed", "closed", "closed"]


async def test_the_old_address_of_a_confirmed_change_is_taken(work: Work, user: User) -> None:
    """Until the change can no longer be undone, no other account gets the address; the own account does."""
    change = make_change(user, 1)
    other = make_user("other@example.com")
    async with work() as unit:
        await unit.email_changes.add(change)
        await unit.users.add(other)
        assert not await unit.email_changes.is_restorable(ADA.canonical, at=NOW)
        await unit.email_changes.set_state(change.id, EmailChangeState.CONFIRMED)
        assert await unit.email_changes.is_restorable(ADA.canonical, at=NOW)
        assert not await unit.email_changes.is_restorable(ADA.canonical, at=NOW + HOUR)
        assert not await unit.email_changes.is_restorable(ADA.canonical, at=NOW, to_other_than=user.id)
        assert not await unit.email_changes.is_restorable(BOB.canonical, at=NOW)
    async with work() as unit:
        for attempt in (unit.users.add(make_user(ADA.canonical)), unit.users.set_email(other.id, ADA, at=NOW)):
            with pytest.raises(EmailTaken):
                await attempt
        assert await unit.users.by_email(ADA.canonical) is None
        changed = await unit.users.set_email(user.id, ADA, at=NOW)
        assert changed is not None
        assert (changed.email, changed.email_verified) == (ADA, True)
    async with work() as unit:
        assert await unit.users.by_email(ADA.canonical) == changed
        with pytest.raises(EmailTaken):
            await unit.users.set_email(other.id, ADA, at=NOW + HOUR)
        assert await unit.users.set_email(new_id(), BOB, at=NOW) is None
        unchanged = await unit.users.get(other.id)
        assert unchanged is not None
        assert unchanged.email == other.email, "the unit of work is still usable"


async def test_expired_changes_are_purged(work: Work, user: User) -> None:
    """Changes that can no longer be undone are deleted, up to the limit."""
    async with work() as unit:
        for number in range(3):
            await unit.email_changes.add(make_change(user, number))
        assert await unit.email_changes.purge(before=NOW + HOUR - timedelta(seconds=1), limit=9) == 0
        assert await unit.email_changes.purge(before=NOW + HOUR, limit=2) == 2
        assert len(await unit.email_changes.of(user.id)) == 1


async def test_all_tokens_are_kept_without_a_limit(work: Work, user: User) -> None:
    """A token that is added with `keep=None` deletes no other one."""
    tokens = [
        OneTimeToken(new_id(), Purpose.UNDO_EMAIL, user.id, b"hash", NOW - number * HOUR / 9, NOW + HOUR)
        for number in range(6)
    ]
    async with work() as unit:
        for token in tokens:
            await unit.one_time_tokens.add(token, keep=None)
        for token in tokens:
            assert await unit.one_time_tokens.peek(token.id, token.purpose, b"hash", at=NOW) == user.id


async def test_a_confirmed_change_is_seen_by_a_concurrent_registration(database: Database) -> None:
    """An account that waits for the address of an uncommitted change finds that it can be restored."""

    def work() -> SqlAuthUnitOfWork:
        return SqlAuthUnitOfWork(database, FrozenClock(), new_id)

    user = make_user(ADA.canonical)
    change = make_change(user, 1)
    async with work() as unit:
        await unit.users.add(user)
        await unit.email_changes.add(change)
    async with work() as late:
        async with work() as first:
            await first.users.set_email(user.id, BOB, at=NOW)
            await first.email_changes.set_state(change.id, EmailChangeState.CONFIRMED)
            adding = asyncio.create_task(late.users.add(make_user(ADA.canonical)))
            await eventually_waiting(database)
        with pytest.raises(EmailTaken):
            await adding

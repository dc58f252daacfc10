"""Administration on PostgreSQL, with concurrent administrators."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy import select, update

from tequipy_auth import AuditFilter, Auth, Client, Principal, Role, UserFilter
from tequipy_auth.infrastructure.models import UserRow
from tequipy_platform import DomainError, PageRequest
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH

from .processes import PASSWORD


def principal(user_id: UUID) -> Principal:
    return Principal(user_id, user_id, ("admin",), 1, EPOCH, ("pwd",))


async def make_admins(auth: Auth, number: int) -> list[UUID]:
    for each in range(number):
        await auth.registration.create_admin(email=f"admin{each}@example.com", password=PASSWORD)
    return [user.id for user in (await auth.administration.users(PageRequest(), UserFilter())).items]


async def active_admins(database: Database) -> int:
    async with database.sessions() as session:
        admins = select(UserRow.id).where(UserRow.roles.contains(["admin"]), UserRow.status == "active")
        return len(list(await session.scalars(admins)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "rounds", [pytest.param(20, id="short"), pytest.param(200, id="long", marks=pytest.mark.prove)]
)
async def test_two_administrators_never_remove_each_other(auth: Auth, database: Database, rounds: int) -> None:
    """Two administrators demote or disable each other at once, again and again: one of them remains each time."""
    one, other = await make_admins(auth, 2)
    outcomes: Counter[str] = Counter()

    async def remove(actor: UUID, subject: UUID, round_number: int) -> None:
        try:
            if round_number % 2:
                await auth.administration.set_roles(principal(actor), subject, [], client=Client())
            else:
                await auth.administration.disable(principal(actor), subject, client=Client())
            outcomes["removed"] += 1
        except DomainError as error:
            outcomes[error.code] += 1

    left = set()
    for round_number in range(rounds):
        await asyncio.gather(remove(one, other, round_number), remove(other, one, round_number))
        left.add(await active_admins(database))
        async with database.sessions() as session:
            await session.execute(update(UserRow).values(roles=("admin",), status="active"))
            await session.commit()
    print(f"\n{rounds} rounds: {left} administrators left, {dict(outcomes)}")
    assert left == {1}
    assert outcomes["removed"] == rounds


async def test_a_role_is_not_deleted_while_it_is_given(auth: Auth, database: Database) -> None:
    """A role is deleted and given at once: either the account has it and it exists, or neither."""
    admin, subject = await make_admins(auth, 2)
    for _ in range(20):
        await auth.roles.define(Role("auditor", ("audit:read",)))
        await asyncio.gather(
            auth.administration.set_roles(principal(admin), subject, ["auditor"], client=Client()),
            auth.roles.delete("auditor", by=principal(admin)),
            return_exceptions=True,
        )
        exists = "auditor" in {role.name for role in (await auth.roles.all()).roles}
        assert ("auditor" in (await auth.administration.user(subject)).roles) == exists
        async with database.sessions() as session:
            await session.execute(update(UserRow).values(roles=("admin",)))
            await session.commit()


async def test_a_change_is_audited_with_its_author(auth: Auth) -> None:
    """The event has actor, subject, the new and the earlier roles."""
    admin, subject = await make_admins(auth, 2)
    await auth.administration.set_roles(principal(admin), subject, ["support"], client=Client("192.0.2.1", "test"))
    (record,) = (await auth.audit_log.page(PageRequest(), AuditFilter(subject, "role_changed"))).items
    assert (record.event.actor_id, record.event.subject_id) == (admin, subject)
    assert record.event.metadata == {"roles": ["support"], "previous": ["admin"]}

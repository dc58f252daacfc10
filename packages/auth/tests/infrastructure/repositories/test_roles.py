"""The repository of roles: one contract suite for memory and PostgreSQL."""

from tequipy_auth import Role

from .entities import Work


async def test_a_role_replaces_the_role_of_the_same_name(work: Work) -> None:
    """Each name has one role, the latest; roles are sorted by name."""
    async with work() as unit:
        for role in (Role("support", ("users:read",)), Role("auditor"), Role("support", ("audit:read", "users:read"))):
            await unit.roles.put(role)
    async with work() as unit:
        assert list(await unit.roles.all()) == [Role("auditor"), Role("support", ("audit:read", "users:read"))]


async def test_a_deleted_role_is_gone(work: Work) -> None:
    """Deleting returns whether there was such a role."""
    async with work() as unit:
        await unit.roles.put(Role("auditor"))
        assert await unit.roles.delete("auditor")
        assert not await unit.roles.delete("auditor")
        assert list(await unit.roles.all()) == []

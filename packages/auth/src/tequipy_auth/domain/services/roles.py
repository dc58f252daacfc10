"""Roles: their permissions, through a cache, and their definition."""

from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import Role, RoleMap
from tequipy_auth.domain.task_names import DROP_ROLES
from tequipy_caching import Cache
from tequipy_platform import JSON, Delivery, retry_conflicts

_CACHE_KEY: Final = "roles"
"""The only key of the cache: all roles are one cached value."""


class RoleService:
    """Reads the roles through the `config` cache, so that permissions remain available while the database is down."""

    def __init__(
        self, unit_of_work: Callable[[], AuthUnitOfWork], *, roles: Cache[RoleMap], operations: Operations
    ) -> None:
        self._unit_of_work = unit_of_work
        self._roles = roles
        self._operations = operations

    async def permissions_of(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Return the permissions of the given roles, sorted; an unknown role grants none."""
        role_map = await self._roles.get_or_set(_CACHE_KEY, self._load)
        return role_map.permissions_of(roles)

    @counted("define_role")
    @retry_conflicts
    async def define(self, role: Role, *, actor_id: UUID | None = None) -> None:
        """Store the permissions of a role; every process uses them at once.

        A task of the same transaction invalidates the cache once more, in case this process dies before it does.
        """
        async with self._unit_of_work() as work:
            await work.roles.put(role)
            work.outbox.add(DROP_ROLES)
            metadata: dict[str, JSON] = {"role": role.name, "permissions": list(role.permissions)}
            work.audit.record(AuditEvent(AuditAction.ROLE_CHANGED, actor_id=actor_id, metadata=metadata))
        await self._roles.delete(_CACHE_KEY)

    async def drop_roles(self, _delivery: Delivery) -> None:
        """Run the task `auth.drop_roles`: remove the roles from the cache."""
        await self._roles.delete(_CACHE_KEY)

    async def _load(self) -> RoleMap:
        async with self._unit_of_work() as work:
            return RoleMap.over_built_in(await work.roles.all())

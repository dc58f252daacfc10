"""Roles: their permissions, through a cache, and their definition."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import Permission, Role, RoleMap
from tequipy_auth.domain.task_names import DROP_ROLES
from tequipy_auth.domain.value_objects import Principal
from tequipy_caching import Cache
from tequipy_platform import JSON, Delivery, Forbidden, retry_conflicts

_CACHE_KEY: Final = "stored_roles"
"""The key of all stored roles, which are one cached value.

The built-in roles are not cached, because their permissions are those that the running release declares.
"""

_EARLIER_KEY: Final = "roles"
"""The key of release 0.1.0, whose value has the built-in roles too."""


class RoleService:
    """Reads the roles through the `config` cache, so that permissions remain available while the database is down.

    `permissions` are those that the wired packages declare.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        permissions: Sequence[Permission],
        roles: Cache[RoleMap],
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self.permissions = permissions
        self._roles = roles
        self._operations = operations

    async def permissions_of(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Return the permissions of the given roles, sorted; an unknown role grants none."""
        return (await self.all()).permissions_of(roles)

    async def all(self) -> RoleMap:
        """Return all roles, the built-in ones first."""
        stored = await self._roles.get_or_set(_CACHE_KEY, self._load)
        return RoleMap.of(stored.roles, self.permissions)

    async def require(self, principal: Principal, permission: str) -> None:
        """Raise `Forbidden` unless one of the caller's roles has the permission."""
        if permission not in await self.permissions_of(principal.roles):
            raise Forbidden

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
        await self._drop()

    async def drop_roles(self, _delivery: Delivery) -> None:
        """Run the task `auth.drop_roles`: remove the roles from the cache."""
        await self._drop()

    async def _drop(self) -> None:
        for key in (_CACHE_KEY, _EARLIER_KEY):
            await self._roles.delete(key)

    async def _load(self) -> RoleMap:
        async with self._unit_of_work() as work:
            return RoleMap(tuple(await work.roles.all()))

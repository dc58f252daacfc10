"""Roles: their permissions, through a cache, and their definition."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.entities import UserStatus
from tequipy_auth.domain.exceptions import BuiltinRole, RoleInUse, UnknownPermission
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import BUILT_IN, PROTECTED, ROLES_WRITE, Permission, Role, RoleMap, built_in_roles
from tequipy_auth.domain.task_names import DROP_ROLES
from tequipy_auth.domain.value_objects import Principal
from tequipy_caching import Cache
from tequipy_platform import JSON, Clock, Delivery, Forbidden, NotFound, retry_conflicts

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
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self.permissions = permissions
        self._built_in = built_in_roles(permissions)
        self._roles = roles
        self._clock = clock
        self._operations = operations
        # Worked out once for the stored roles that the cache returns, because each request with a permission asks.
        self._stored: RoleMap | None = None
        self._all = self._built_in
        self._granted: dict[tuple[str, ...], tuple[str, ...]] = {}

    async def permissions_of(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Return the permissions of the given roles, sorted; an unknown role grants none."""
        all_roles, names = await self.all(), tuple(roles)
        granted = self._granted.get(names)
        if granted is None:
            granted = self._granted[names] = all_roles.permissions_of(names)
        return granted

    async def all(self) -> RoleMap:
        """Return all roles, the built-in ones first."""
        stored = await self._roles.get_or_set(_CACHE_KEY, self._load)
        if stored is not self._stored:
            self._stored, self._all, self._granted = stored, RoleMap.of(self._built_in, stored.roles), {}
        return self._all

    async def require(self, principal: Principal, permission: str) -> None:
        """Raise `Forbidden` unless one of the caller's roles has the permission."""
        if permission not in await self.permissions_of(principal.roles):
            raise Forbidden

    async def require_all(
        self, work: AuthUnitOfWork, roles: RoleMap, principal: Principal, permissions: Collection[str]
    ) -> None:
        """Raise `Forbidden` unless the caller's account has all these permissions in the state of this transaction.

        `roles` is what `stored` returned. The roles in the caller's access token, and the cached roles, may be some
        milliseconds old.
        """
        if not await self.has_all(work, roles, principal.user_id, permissions):
            raise Forbidden

    async def has_all(self, work: AuthUnitOfWork, roles: RoleMap, user_id: UUID, permissions: Collection[str]) -> bool:
        """Return whether an active account has all these permissions in the state of this transaction."""
        user = await work.users.get(user_id)
        if user is None or user.status is not UserStatus.ACTIVE:
            return False
        return set(permissions) <= set(roles.permissions_of(user.roles))

    async def stored(self, work: AuthUnitOfWork) -> RoleMap:
        """Return all roles in the state of this transaction."""
        return RoleMap.of(self._built_in, await work.roles.all())

    @counted("define_role")
    @retry_conflicts
    async def define(self, role: Role, *, by: Principal | None = None) -> None:
        """Store the permissions of a role; every process uses them at once.

        `by` is the administrator who defines it, and None for the operator. Raises `BuiltinRole`, `UnknownPermission`,
        and `Forbidden` if the role gets a permission that the administrator lacks. A task of the same transaction
        invalidates the cache once more, in case this process dies before it does.
        """
        if role.name in PROTECTED:
            raise BuiltinRole
        if not set(role.permissions) <= {permission.name for permission in self.permissions}:
            raise UnknownPermission
        async with self._unit_of_work() as work:
            await work.users.lock_administrators()
            if by is not None:
                roles = await self.stored(work)
                given = set(role.permissions) - set(roles.permissions_of([role.name]))
                await self.require_all(work, roles, by, {ROLES_WRITE.name, *given})
            await work.roles.put(role)
            _record(work, by, role=role.name, permissions=list(role.permissions))
        await self._drop()

    @counted("delete_role")
    @retry_conflicts
    async def delete(self, name: str, *, by: Principal | None = None) -> None:
        """Delete a role; raises `BuiltinRole`, `NotFound`, `RoleInUse`, and `Forbidden` without `roles:write`."""
        if name in BUILT_IN:
            raise BuiltinRole
        async with self._unit_of_work() as work:
            await work.users.lock_administrators()  # so that nobody gives the role meanwhile
            if by is not None:
                await self.require_all(work, await self.stored(work), by, {ROLES_WRITE.name})
            if not await work.roles.delete(name):
                raise NotFound
            if await work.users.any_has_role(name) or await work.invitations.any_has_role(name, at=self._clock.now()):
                raise RoleInUse
            _record(work, by, role=name, deleted=True)
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


def _record(work: AuthUnitOfWork, by: Principal | None, **metadata: JSON) -> None:
    """Audit the change, and let a task of the same transaction invalidate the cached roles."""
    work.outbox.add(DROP_ROLES)
    work.audit.record(AuditEvent(AuditAction.ROLE_CHANGED, actor_id=by.user_id if by else None, metadata=metadata))

"""What roles permit: read by everybody, seldom changed."""

from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.roles import Role, RoleMap
from tequipy_caching import Cache
from tequipy_platform import JSON, Delivery, retry_conflicts

_MAP: Final = "roles"


class RoleService:
    """The role map, read through the `config` cache: an outage of the database does not take permissions away."""

    def __init__(
        self, unit_of_work: Callable[[], AuthUnitOfWork], *, config: Cache[RoleMap], operations: Operations
    ) -> None:
        self._unit_of_work = unit_of_work
        self._config = config
        self.operations = operations

    async def permissions_of(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Return what roles permit together, sorted; an unknown role permits nothing."""
        held = await self._config.get_or_set(_MAP, self._load)
        return held.permissions_of(roles)

    @counted("define_role")
    @retry_conflicts
    async def define(self, role: Role, *, actor_id: UUID | None = None) -> None:
        """Store what a role permits, in the place of what it permitted; every process knows at once.

        A task of the same commit drops the map once more, should this process die before it could.
        """
        async with self._unit_of_work() as work:
            await work.roles.put(role)
            work.outbox.add("auth.drop_roles")
            permits: dict[str, JSON] = {"role": role.name, "permissions": list(role.permissions)}
            work.audit.record(AuditEvent(AuditAction.ROLE_CHANGED, actor_id=actor_id, metadata=permits))
        await self._config.delete(_MAP)

    async def drop(self, _delivery: Delivery) -> None:
        """Perform the task `auth.drop_roles`: whoever asks next reads what is true."""
        await self._config.delete(_MAP)

    async def _load(self) -> RoleMap:
        async with self._unit_of_work() as work:
            return RoleMap.over_built_in(await work.roles.all())

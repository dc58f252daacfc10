"""Stored roles on PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.domain.repositories import Roles
from tequipy_auth.domain.roles import Role
from tequipy_auth.infrastructure.models import RoleRow
from tequipy_auth.infrastructure.repositories.base import Repository


class SqlRoles(Repository, Roles):
    """Rows of `auth.roles`."""

    async def all(self) -> Sequence[Role]:
        """Select every role."""
        rows = await self._session.execute(select(RoleRow.name, RoleRow.permissions).order_by(RoleRow.name))
        return [Role(name, permissions) for name, permissions in rows]

    async def put(self, role: Role) -> None:
        """Insert a role or update the role of the same name."""
        row = insert(RoleRow).values(name=role.name, permissions=role.permissions)
        await self._session.execute(
            row.on_conflict_do_update(index_elements=[RoleRow.name], set_={"permissions": row.excluded.permissions})
        )

    async def delete(self, name: str) -> bool:
        """Delete a row."""
        found = await self._session.execute(delete(RoleRow).where(RoleRow.name == name).returning(RoleRow.name))
        return found.first() is not None

"""Stored roles in memory."""

from collections.abc import Sequence

from tequipy_auth.domain.repositories import Roles
from tequipy_auth.domain.roles import Role


class MemoryRoles(Roles):
    """Stores roles by name."""

    def __init__(self) -> None:
        self.rows: dict[str, Role] = {}

    async def all(self) -> Sequence[Role]:
        """Return every stored role."""
        return [self.rows[name] for name in sorted(self.rows)]

    async def put(self, role: Role) -> None:
        """Store a role."""
        self.rows[role.name] = role

    async def delete(self, name: str) -> bool:
        """Delete a role."""
        return self.rows.pop(name, None) is not None

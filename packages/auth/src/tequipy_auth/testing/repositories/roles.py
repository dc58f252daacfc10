"""What roles permit, in memory."""

from collections.abc import Sequence

from tequipy_auth.domain.repositories import Roles
from tequipy_auth.domain.roles import Role


class MemoryRoles(Roles):
    """Roles by name."""

    def __init__(self) -> None:
        self.rows: dict[str, Role] = {}

    async def all(self) -> Sequence[Role]:
        """Return every stored role."""
        return [self.rows[name] for name in sorted(self.rows)]

    async def put(self, role: Role) -> None:
        """Keep a role."""
        self.rows[role.name] = role

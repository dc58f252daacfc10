"""What accounts may do: roles carry permissions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PERMISSION: Final = re.compile(rf"{_NAME.pattern}:{_NAME.pattern}")


@dataclass(frozen=True, slots=True)
class Role:
    """A name that accounts carry, and what it permits, sorted; raises `ValueError` for a malformed one."""

    name: str
    """Snake_case."""
    permissions: tuple[str, ...] = ()
    """`resource:verb`, as `users:read`."""

    def __post_init__(self) -> None:
        """Refuse what no `require` could ever ask for."""
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"{self.name!r} is no name of a role: snake_case, as `support`")
        for permission in self.permissions:
            if _PERMISSION.fullmatch(permission) is None:
                raise ValueError(f"{permission!r} is no permission: `resource:verb`, as `users:read`")
        object.__setattr__(self, "permissions", tuple(sorted(set(self.permissions))))


BUILT_IN: Final = (
    Role("user"),
    Role("support", ("audit:read", "reports:read", "users:read")),
    Role("admin", ("audit:read", "reports:read", "reports:write", "users:read", "users:write")),
)
"""The roles of every installation; one that is stored under the same name takes the place of a built-in one."""


@dataclass(frozen=True, slots=True)
class RoleMap:
    """Every role there is; frozen, for it is shared by reference through the cache."""

    roles: tuple[Role, ...]

    @classmethod
    def over_built_in(cls, stored: Iterable[Role]) -> "RoleMap":
        """Return the built-in roles with the stored ones added, and put in the place of those of the same name."""
        by_name = {role.name: role for role in (*BUILT_IN, *stored)}
        return cls(tuple(by_name.values()))

    def permissions_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return what the roles of these names permit together, sorted; an unknown one permits nothing."""
        carried = set(names)
        return tuple(sorted({each for role in self.roles if role.name in carried for each in role.permissions}))

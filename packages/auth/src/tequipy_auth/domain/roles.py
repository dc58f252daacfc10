"""Roles and the permissions that they grant."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PERMISSION: Final = re.compile(rf"{_NAME.pattern}:{_NAME.pattern}")


@dataclass(frozen=True, slots=True)
class Role:
    """A role and its permissions, which are sorted; raises `ValueError` for a malformed name or permission."""

    name: str
    """The name in snake_case."""
    permissions: tuple[str, ...] = ()
    """Permissions of the form `resource:verb`, for instance `users:read`."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a malformed role name or permission."""
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
"""The default roles; a stored role of the same name replaces the default."""


@dataclass(frozen=True, slots=True)
class RoleMap:
    """All roles; immutable, because the cache shares one instance between callers."""

    roles: tuple[Role, ...]

    @classmethod
    def over_built_in(cls, stored: Iterable[Role]) -> "RoleMap":
        """Return the built-in roles, with the stored roles added or replacing those of the same name."""
        by_name = {role.name: role for role in (*BUILT_IN, *stored)}
        return cls(tuple(by_name.values()))

    def permissions_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the permissions of the given roles, sorted; an unknown role grants none."""
        given = set(names)
        permissions = {permission for role in self.roles if role.name in given for permission in role.permissions}
        return tuple(sorted(permissions))

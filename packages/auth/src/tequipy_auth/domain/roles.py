"""Roles and the permissions that they grant."""

import re
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Permission:
    """A permission that a package declares, with the built-in roles that have it from the start.

    The role `admin` has every declared permission. Raises `ValueError` for a malformed name.
    """

    name: str
    """The name in the form `resource:verb`, for instance `users:read`."""
    description: str
    """What it allows, in one sentence for administrators."""
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` for a malformed name."""
        if _PERMISSION.fullmatch(self.name) is None:
            raise ValueError(f"{self.name!r} is no permission: `resource:verb`, as `users:read`")


USERS_READ: Final = Permission("users:read", "See all accounts, invitations and roles.", ("support",))
USERS_WRITE: Final = Permission("users:write", "Change, disable and invite accounts, and end their sessions.")
ROLES_WRITE: Final = Permission("roles:write", "Define roles and their permissions.")
AUDIT_READ: Final = Permission("audit:read", "See the audit events of all accounts.", ("support",))

PERMISSIONS: Final = (USERS_READ, USERS_WRITE, ROLES_WRITE, AUDIT_READ)
"""The permissions of auth itself."""

USER: Final = "user"
SUPPORT: Final = "support"
ADMIN: Final = "admin"

BUILT_IN: Final = frozenset({USER, SUPPORT, ADMIN})
"""The roles that exist from the start, and cannot be deleted."""

PROTECTED: Final = frozenset({USER, ADMIN})
"""The built-in roles that nobody can change."""


@dataclass(frozen=True, slots=True)
class RoleMap:
    """Roles; immutable, because the cache shares one instance between callers."""

    roles: tuple[Role, ...]

    @classmethod
    def of(cls, built_in: "RoleMap", stored: Iterable[Role]) -> "RoleMap":
        """Return the built-in roles and the stored ones; a stored role replaces a built-in one of its name."""
        return cls(tuple({role.name: role for role in (*built_in.roles, *stored)}.values()))

    def has_all(self, names: Iterable[str]) -> bool:
        """Return whether all these roles exist."""
        return set(names) <= {role.name for role in self.roles}

    def permissions_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the permissions of the given roles, sorted; an unknown role grants none."""
        given = set(names)
        permissions = {permission for role in self.roles if role.name in given for permission in role.permissions}
        return tuple(sorted(permissions))


def built_in_roles(permissions: Sequence[Permission]) -> RoleMap:
    """Return the built-in roles with those of the declared permissions that they have from the start."""
    return RoleMap(
        (
            Role(USER),
            Role(SUPPORT, tuple(each.name for each in permissions if SUPPORT in each.roles)),
            Role(ADMIN, tuple(each.name for each in permissions)),
        )
    )

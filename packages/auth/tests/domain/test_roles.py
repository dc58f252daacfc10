"""Permissions of roles, and which roles are refused."""

import pytest

from tequipy_auth import Permission, Role
from tequipy_auth.domain.roles import PERMISSIONS, RoleMap, built_in_roles


def test_permissions_of_several_roles_are_one_sorted_set() -> None:
    """The permissions are sorted and unique; an unknown role grants none."""
    roles = RoleMap((Role("writer", ("b:write", "a:write")), Role("reader", ("b:write", "a:read"))))
    assert roles.permissions_of(("writer", "reader", "ghost")) == ("a:read", "a:write", "b:write")
    assert roles.permissions_of(()) == ()


def test_a_stored_role_replaces_a_built_in_one() -> None:
    """Stored roles replace built-in roles of the same name and are added to the others."""
    stored = [Role("support", ("users:read",)), Role("auditor", ("audit:read",))]
    roles = RoleMap.of(built_in_roles(PERMISSIONS), stored)
    assert roles.permissions_of(["support"]) == ("users:read",)
    assert roles.permissions_of(["auditor"]) == ("audit:read",)
    assert "users:write" in roles.permissions_of(["admin"])
    assert roles.permissions_of(["user"]) == ()


def test_a_declared_permission_belongs_to_the_roles_that_it_names_and_to_admin() -> None:
    """A permission that another package declares is given to its default roles and to `admin`, and to no other."""
    declared = [*PERMISSIONS, Permission("reports:read", "See all reports.", ("support",)), Permission("a:b", "B.")]
    roles = built_in_roles(declared)
    assert "reports:read" in roles.permissions_of(["support"])
    assert "a:b" not in roles.permissions_of(["support", "user"])
    assert roles.permissions_of(["admin"]) == tuple(sorted(each.name for each in declared))


@pytest.mark.parametrize(
    ("name", "permission"), [("", "a:read"), ("Support", "a:read"), ("a b", "a:read"), ("a", "read"), ("a", "a:b:c")]
)
def test_a_malformed_role_is_refused(name: str, permission: str) -> None:
    """Names must be snake_case and permissions `resource:verb`."""
    with pytest.raises(ValueError, match=r"snake_case|resource:verb"):
        Role(name, (permission,))
    if ":" not in name and permission != "a:read":
        with pytest.raises(ValueError, match="resource:verb"):
            Permission(permission, "")

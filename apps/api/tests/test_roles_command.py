"""`tequipy-api roles` as operators run it."""

import subprocess
from collections.abc import Callable

import pytest

from tequipy_api.catalogue import PERMISSIONS
from tequipy_auth.testing import build_fake_auth

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_role_is_made_changed_and_deleted(run_command: Command) -> None:
    """A role is listed with its permissions until it is deleted."""
    for permissions in (["users:read", "audit:read"], ["audit:read"]):
        result = run_command("roles", "set", "auditor", *permissions)
        assert (result.returncode, result.stdout) == (0, f"auditor: {' '.join(sorted(permissions))}\n"), result.stderr
    listed = run_command("roles", "list").stdout.splitlines()
    declared = build_fake_auth(permissions=PERMISSIONS).roles.permissions
    assert listed[:4] == [
        "user: -",
        f"support: {' '.join(sorted(each.name for each in declared if 'support' in each.roles))}",
        f"admin: {' '.join(sorted(each.name for each in declared))}",
        "auditor: audit:read",
    ]
    assert "users:read  See all accounts, invitations and roles." in listed
    result = run_command("roles", "delete", "auditor")
    assert (result.returncode, result.stdout) == (0, "auditor is deleted.\n"), result.stderr
    assert "auditor" not in run_command("roles", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "admin"), "This role is built in"),
        (("set", "Auditor", "audit:read"), "snake_case"),
        (("set", "auditor", "audit"), "resource:verb"),
        (("set", "auditor", "ghost:read"), "A permission does not exist."),
        (("delete", "support"), "This role is built in"),
        (("delete", "ghost"), "There is nothing here."),
    ],
)
def test_wrong_roles_are_refused(run_command: Command, arguments: tuple[str, ...], message: str) -> None:
    """The command ends with status 1 and says what is wrong."""
    result = run_command("roles", *arguments)
    assert result.returncode == 1
    assert message in result.stderr

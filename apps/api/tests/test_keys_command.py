"""`tequipy-api keys` as operators run it."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tequipy_api import cli
from tequipy_api.start_check import unusable_keys_line
from tequipy_auth import KeyService, KeyUnusable
from tequipy_devstack.proving import eventually

Command = Callable[..., subprocess.CompletedProcess[str]]


def states(run_command: Command) -> dict[str, str]:
    """Return the states of the listed keys, oldest first."""
    result = run_command("keys", "list")
    assert result.returncode == 0, result.stderr
    return {kid: state for kid, _, state, *_ in (line.split() for line in result.stdout.splitlines())}


def rotate_after_a_second(run_command: Command, **also: str) -> subprocess.CompletedProcess[str]:
    """Rotate the keys as soon as the next one has been published for a second; return the result."""
    results: list[subprocess.CompletedProcess[str]] = []

    def is_old_enough() -> bool:
        results.append(run_command("keys", "rotate", TEQUIPY_AUTH__POLICY__JWKS_MAX_AGE="1", **also))
        return "rotate after" not in results[-1].stderr

    eventually("the next key is old enough", is_old_enough)
    return results[-1]


def test_keys_are_rotated_and_revoked(run_command: Command) -> None:
    """A next key is published at once and can be activated later; after a revocation another key signs."""
    result = run_command("keys", "rotate")
    assert result.returncode == 1
    assert "rotate after" in result.stderr
    first, second = sorted(states(run_command), key=states(run_command).__getitem__)
    assert states(run_command) == {first: "active", second: "next"}
    result = rotate_after_a_second(run_command)
    assert (result.returncode, result.stdout) == (0, f"{second} signs from now on.\n"), result.stderr
    assert sorted(states(run_command).values()) == ["active", "next", "retiring"]
    result = run_command("keys", "revoke", second)
    assert (result.returncode, result.stdout) == (0, f"{second} is revoked.\n"), result.stderr
    assert sorted(states(run_command).values()) == ["active", "next", "retiring", "revoked"]
    assert (states(run_command)[first], states(run_command)[second]) == ("retiring", "revoked")


def test_keys_from_files_cannot_be_rotated_by_command(run_command: Command, tmp_path: Path) -> None:
    """With keys from files, the command refuses and names the setting of the folder."""
    result = run_command("keys", "rotate", TEQUIPY_AUTH__SIGNING_KEYS_FOLDER=str(tmp_path))
    assert result.returncode == 1
    assert "TEQUIPY_AUTH__SIGNING_KEYS_FOLDER" in result.stderr


def test_an_unknown_key_id_is_reported(run_command: Command) -> None:
    """An unknown id gives status 1 and names the command that lists the ids."""
    result = run_command("keys", "revoke", "nothing")
    assert result.returncode == 1
    assert result.stderr == "Error: There is no signing key nothing to revoke. `tequipy-api keys list` shows all.\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyUnusable("old", remedy="reencrypt"), "KEY_ENCRYPTION_KEY: old Command: `tequipy-api keys reseal`."),
        (KeyUnusable("gone"), "KEY_ENCRYPTION_KEY: gone"),
        (KeyUnusable("no file", setting="signing_keys_folder"), "SIGNING_KEYS_FOLDER: no file"),
    ],
)
def test_the_line_about_an_unusable_key_names_variable_and_command(error: KeyUnusable, line: str) -> None:
    """The app adds the variable of the setting and the command of the remedy, which auth does not know."""
    assert unusable_keys_line(error) == f"TEQUIPY_AUTH__{line}"


OLD, NEW, WRONG = (f"{name} key-encryption key of a test, 32 characters" for name in ("old", "new", "wrong"))


def test_keys_move_to_the_newest_key_encryption_key(run_command: Command) -> None:
    """`keys reseal` encrypts every key under the newest version, after which the old version is not needed; a second
    run changes nothing.
    """
    setting = "TEQUIPY_AUTH__KEY_ENCRYPTION_KEY"
    assert run_command("keys", "rotate", **{setting: OLD}).returncode == 1  # creates a key that is too young to sign
    kids = sorted(states(run_command))
    refused = run_command("keys", "reseal", **{setting: f'{{"2": "{WRONG}"}}'})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"Error: {setting}: signing key ")
    foreign = run_command("keys", "reseal", **{setting: WRONG})
    assert any(f"Command to revoke it: `tequipy-api keys revoke {kid}`." in foreign.stderr for kid in kids)
    both = {f"{setting}__1": OLD, f"{setting}__2": NEW}
    moved = run_command("keys", "reseal", **both)
    assert (moved.returncode, moved.stderr) == (0, "")
    assert sorted(line.split()[0] for line in moved.stdout.splitlines()) == kids
    again = run_command("keys", "reseal", **both)
    assert again.stdout == "Every key is encrypted under the newest key already.\n"
    listed = run_command("keys", "list").stdout.splitlines()
    assert [line.endswith("key-encryption key 2") for line in listed] == [True, True]
    rotated = rotate_after_a_second(run_command, **{f"{setting}__2": NEW})
    assert rotated.returncode == 0, rotated.stderr
    secrets = [OLD, NEW, WRONG]
    assert not any(secret in result.stderr + result.stdout for secret in secrets for result in (moved, again, rotated))


@pytest.mark.parametrize("kid", [first + "X" * 41 for first in ("-x", "--", "-h")])
def test_a_key_id_may_begin_with_a_hyphen(run_command: Command, kid: str) -> None:
    """A key id that begins with a hyphen is not treated as an option; one in 64 does."""
    result = run_command("keys", "revoke", kid)
    assert result.returncode == 1
    assert result.stderr == f"Error: There is no signing key {kid} to revoke. `tequipy-api keys list` shows all.\n"


async def _perform(action: Callable[[KeyService], Awaitable[None]], service: "_Recorder") -> None:
    await action(service)  # type: ignore[arg-type]  # -- has only the method that the command calls


class _Recorder:
    """A key service that records the ids it is asked to revoke."""

    def __init__(self) -> None:
        self.revoked: list[str] = []

    async def revoke(self, kid: str) -> None:
        self.revoked.append(kid)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kid=st.from_regex(r"[A-Za-z0-9_-]{43}", fullmatch=True) | st.from_regex(r"-[A-Za-z0-9_-]{42}", fullmatch=True))
def test_every_key_id_reaches_the_service_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, kid: str) -> None:
    """For any thumbprint of 43 base64url characters the command revokes exactly that key."""
    recorder = _Recorder()

    def run(action: Callable[[KeyService], Awaitable[None]]) -> None:
        asyncio.run(_perform(action, recorder))

    monkeypatch.setattr(cli, "_with_keys", run)
    result = CliRunner().invoke(cli.main, ["keys", "revoke", kid], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert recorder.revoked == [kid]

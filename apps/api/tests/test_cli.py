"""The command line as operators run it."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from tequipy_api.histories import HISTORIES

Command = Callable[..., subprocess.CompletedProcess[str]]
PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize(
    "command",
    [["serve"], ["migrate", "upgrade"], ["create-admin", "--email", "ada@example.com"], ["settings"]],
    ids=lambda command: command[0],
)
def test_wrong_settings_end_every_command(run_command: Command, command: list[str]) -> None:
    """A wrong setting gives status 78 and one line per fault with the variable and without its value."""
    result = run_command(
        *command, without=("TEQUIPY_ENVIRONMENT",), TEQUIPY_DATABASE__URL="mysql://ada:hunter2@localhost/x"
    )
    assert result.returncode == os.EX_CONFIG
    assert sorted(result.stderr.splitlines()) == [
        "TEQUIPY_DATABASE__URL: URL scheme should be postgresql+asyncpg",
        "TEQUIPY_ENVIRONMENT: is required",
    ]
    assert result.stdout == ""


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["migrate"], ["create-admin"], ["settings"], ["openapi"], ["routes"]], ids=str
)
def test_help_needs_no_settings(run_command: Command, command: list[str]) -> None:
    """`--help` works without any settings."""
    result = run_command(*command, "--help", without=("TEQUIPY_ENVIRONMENT", "TEQUIPY_DATABASE__URL"))
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: tequipy-api" in result.stdout


def test_production_refuses_unsafe_values(run_command: Command) -> None:
    """Built-in secrets, cheap hashes and open metrics are reported together; safe values are accepted."""
    result = run_command("settings", TEQUIPY_ENVIRONMENT="production")
    assert result.returncode == os.EX_CONFIG
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "TEQUIPY_AUTH__PEPPERS",
        "TEQUIPY_AUTH__REFRESH_KEYS",
        "TEQUIPY_AUTH__KEY_ENCRYPTION_KEY",
        "TEQUIPY_AUTH__PSEUDONYM_KEY",
        "TEQUIPY_AUTH__BCRYPT_COST",
        "TEQUIPY_OBSERVABILITY__METRICS_TOKEN",
    ]
    own = "Ut6Zr0mJ1c8QxV5bN3kY7wHs2LdPfGaE"
    result = run_command(
        "settings",
        TEQUIPY_ENVIRONMENT="production",
        TEQUIPY_AUTH__PEPPERS=f'{{"1": "{own}"}}',
        TEQUIPY_AUTH__REFRESH_KEYS=f'{{"1": "{own}"}}',
        TEQUIPY_AUTH__KEY_ENCRYPTION_KEY=own,
        TEQUIPY_AUTH__PSEUDONYM_KEY=own,
        TEQUIPY_AUTH__BCRYPT_COST="12",
        TEQUIPY_OBSERVABILITY__METRICS_TOKEN=own,
    )
    assert result.returncode == 0, result.stderr
    assert own not in result.stdout


def test_allowed_origins_cannot_be_a_wildcard(run_command: Command) -> None:
    """`*` among the allowed origins is refused in every environment."""
    result = run_command("settings", TEQUIPY_ALLOWED_ORIGINS='["*"]')
    assert (result.returncode, result.stderr.partition(":")[0]) == (os.EX_CONFIG, "TEQUIPY_ALLOWED_ORIGINS")


@pytest.mark.parametrize("old", ["TEQUIPY_HEADERS__CORS_ORIGINS", "TEQUIPY_AUTH__ALLOWED_ORIGINS"])
def test_the_lists_of_origins_of_the_last_release_are_refused(run_command: Command, old: str) -> None:
    """A variable that listed origins before there was one list ends the start with one line that names the new one."""
    result = run_command("settings", **{old: '["https://app.example.com"]'})
    assert (result.returncode, result.stderr.splitlines()) == (
        os.EX_CONFIG,
        [f"{old}: unknown name; it is TEQUIPY_ALLOWED_ORIGINS now"],
    )


def test_settings_are_shown_with_secrets_masked(run_command: Command, database_url: str) -> None:
    """The command prints the effective values, defaults included, without passwords and keys."""
    result = run_command(
        "settings",
        TEQUIPY_TRUSTED_PROXIES='["10.0.0.0/8"]',
        TEQUIPY_OBSERVABILITY__OTLP_HEADERS="authorization=Bearer%20hunter2",
    )
    assert result.returncode == 0, result.stderr
    assert "hunter2" not in result.stdout
    assert "TEQUIPY_DATABASE__POOL_SIZE=5" in result.stdout
    assert "TEQUIPY_DATABASE__URL=**********" in result.stdout
    assert 'TEQUIPY_TRUSTED_PROXIES=["10.0.0.0/8"]' in result.stdout
    assert database_url not in result.stdout
    assert "local-only" not in result.stdout


def test_settings_are_explained(run_command: Command) -> None:
    """`settings --explain` prints where each value comes from, rates of all policies included, and shows no secret."""
    rates = {"TEQUIPY_RATE_LIMITS__LOGIN": "30/60"}
    plain, explained = run_command("settings", **rates), run_command("settings", "--explain", **rates)
    assert (explained.returncode, explained.stderr) == (0, "")
    values, explanations = (
        [line for line in each.stdout.splitlines() if line.startswith(("T", "#"))] for each in (plain, explained)
    )
    assert values == explanations
    assert values[-1] == "# Connections to PostgreSQL of each process: at most 17."
    assert "TEQUIPY_RATE_LIMITS__LOGIN=30/60\n    From: environment. Default: `60/60`." in explained.stdout
    assert "TEQUIPY_RATE_LIMITS__REFRESH=120/60\n    From: default." in explained.stdout
    assert "TEQUIPY_AUTH__PSEUDONYM_KEY=**********\n    From: default. Default: built in" in explained.stdout
    assert "local-only" not in explained.stdout


def test_secrets_are_read_from_files(run_command: Command, tmp_path: Path, database_url: str) -> None:
    """`NAME__FILE` replaces a secret in the environment, and an absent file is one line and status 78."""
    file = tmp_path / "database_url"
    given = {"TEQUIPY_DATABASE__URL__FILE": str(file)}
    absent = run_command("migrate", "current", without=("TEQUIPY_DATABASE__URL",), **given)
    assert (absent.returncode, absent.stdout) == (os.EX_CONFIG, "")
    assert absent.stderr == "TEQUIPY_DATABASE__URL__FILE: the file cannot be read: No such file or directory\n"
    file.write_text(f"{database_url}\n")
    result = run_command("migrate", "check", without=("TEQUIPY_DATABASE__URL",), **given)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_version_is_that_of_the_package(run_command: Command) -> None:
    """`--version` needs no settings, and prints the version that the images and metrics have."""
    result = run_command("--version", without=("TEQUIPY_ENVIRONMENT", "TEQUIPY_DATABASE__URL"))
    assert (result.returncode, result.stdout) == (0, f"tequipy-api, version {version('tequipy-api')}\n")


def test_migrations_upgrade_check_and_downgrade(run_command: Command, empty_database_url: str) -> None:
    """All histories are migrated in order, and lead to the models."""

    def migrate(*command: str) -> str:
        result = run_command("migrate", *command, TEQUIPY_DATABASE__URL=empty_database_url)
        assert result.returncode == 0, result.stderr
        return result.stdout

    migrate("upgrade")
    migrate("check")
    current = migrate("current").splitlines()
    assert [line.partition(":")[0] for line in current] == [history.schema for history in HISTORIES]
    assert all(line.endswith("(head)") for line in current)
    assert "0001" in migrate("history")
    migrate("downgrade", "base")
    assert migrate("current").count("(head)") == 0
    migrate("upgrade", "head")


def test_two_concurrent_upgrades_succeed(run_command: Command, empty_database_url: str) -> None:
    """On an empty database one process applies every revision, and the other waits and has nothing to do."""

    def upgrade(_: int) -> subprocess.CompletedProcess[str]:
        return run_command("migrate", "upgrade", "head", TEQUIPY_DATABASE__URL=empty_database_url)

    with ThreadPoolExecutor(2) as side_by_side:
        results = list(side_by_side.map(upgrade, range(2)))
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 2
    assert run_command("migrate", "check", TEQUIPY_DATABASE__URL=empty_database_url).returncode == 0


def test_a_failed_migration_reports_the_reason(run_command: Command, empty_database_url: str) -> None:
    """An unknown revision, an unmigrated database and an unreachable server give one line and status 1."""
    for command, url in (
        (("upgrade", "nothing"), empty_database_url),
        (("check",), empty_database_url),
        (("upgrade",), "postgresql+asyncpg://nobody@127.0.0.1:1/none"),
    ):
        result = run_command("migrate", *command, TEQUIPY_DATABASE__URL=url)
        assert result.returncode == 1
        assert result.stderr.startswith("Error: ")
        assert "Traceback" not in result.stderr


async def test_a_created_admin_can_log_in(run_command: Command, client: httpx.AsyncClient) -> None:
    """The password is read from standard input, the address counts as verified, and a second account is refused."""
    arguments = ("create-admin", "--email", "Ada@Example.com", "--name", "Ada")
    # The command works without Redis.
    result = run_command(*arguments, stdin=f"{PASSWORD}\n", TEQUIPY_CACHE__URL="redis://127.0.0.1:1/0")
    assert (result.returncode, result.stderr) == (0, "")
    login = await client.post("/api/v1/auth/login", json={"email": "ada@example.com", "password": PASSWORD})
    me = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
    assert (me.json()["roles"], me.json()["email_verified"], me.json()["name"]) == (["admin"], True, "Ada")
    result = run_command(*arguments, stdin=f"{PASSWORD}\n")
    assert (result.returncode, result.stderr) == (1, "Error: There is an account with this address already.\n")


@pytest.mark.parametrize(
    ("email", "name", "password", "expected"),
    [
        ("ada@example.com", "Ada", "short", "too_short"),
        ("ada@example.com", "Ada", "", "too_short"),
        ("ada at example", "Ada", PASSWORD, "address is not valid"),
        ("ada@example.com", "A\nda", PASSWORD, "name"),
    ],
)
def test_a_bad_admin_is_refused_in_one_line(
    run_command: Command, email: str, name: str, password: str, expected: str
) -> None:
    """A weak password, invalid address or invalid name gives status 1 or 2 and advice."""
    result = run_command("create-admin", "--email", email, "--name", name, stdin=password)
    assert result.returncode in {1, 2}
    assert expected in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_the_password_is_asked_twice_at_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    """At a terminal the password is hidden and must be entered twice."""
    controller, terminal = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tequipy-api"), "create-admin", "--email", "ada@example.com"],
        env=inherited | environment,
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,  # makes this terminal /dev/tty, from which click reads
    )
    os.close(terminal)
    seen = ""
    try:
        for prompt in ("Password: ", "Repeat for confirmation: "):
            while prompt not in seen:
                seen += os.read(controller, 1024).decode()
            os.write(controller, f"{PASSWORD}\n".encode())
        assert process.wait(30) == 0
        seen += os.read(controller, 1024).decode()
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert "ada@example.com is an administrator." in seen
    assert PASSWORD not in seen


def test_a_check_of_the_settings_refuses_unknown_names(run_command: Command) -> None:
    """`settings --check` prints nothing for known names, and ends with 78 for an unknown exported one."""
    good = run_command("settings", "--check")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    wrong = run_command("settings", "--check", TEQUIPY_RATE_LIMIT__LOGIN="hunter2")
    assert (wrong.returncode, wrong.stdout) == (os.EX_CONFIG, "")
    assert wrong.stderr == "TEQUIPY_RATE_LIMIT__LOGIN: unknown name; did you mean TEQUIPY_RATE_LIMITS__LOGIN?\n"


def test_an_unknown_exported_name_is_one_warning(run_command: Command) -> None:
    """Any other command continues after a warning; variables of Kubernetes cause none."""
    result = run_command(
        "settings",
        TEQUIPY_OBSERVABILTY__LOG_LEVEL="hunter2",
        TEQUIPY_API_SERVICE_HOST="10.0.0.1",
        TEQUIPY_API_PORT="tcp://10.0.0.1:8000",
    )
    assert result.returncode == 0
    assert "TEQUIPY_ENVIRONMENT=test" in result.stdout
    hint = "did you mean TEQUIPY_OBSERVABILITY__LOG_LEVEL?"
    assert result.stderr == f"warning: TEQUIPY_OBSERVABILTY__LOG_LEVEL: unknown name; {hint}\n"


@pytest.mark.parametrize("command", ["serve", "settings"])
def test_a_missing_metrics_folder_is_one_line(run_command: Command, tmp_path: Path, command: str) -> None:
    """If PROMETHEUS_MULTIPROC_DIR, which prometheus_client reads, names no folder, the process ends with 78."""
    result = run_command(command, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "none"))
    assert (result.returncode, result.stdout) == (os.EX_CONFIG, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("PROMETHEUS_MULTIPROC_DIR: should name a folder")


def test_a_file_that_is_not_utf8_is_one_line(run_command: Command, tmp_path: Path) -> None:
    """A `.env` in another encoding is reported with status 78."""
    (tmp_path / ".env").write_bytes(b"TEQUIPY_APP_NAME=caf\xe9\n")
    result = run_command("serve")
    assert (result.returncode, result.stdout, result.stderr) == (os.EX_CONFIG, "", ".env: should be UTF-8 text\n")

"""The settings of the worker as its commands read, refuse and show them."""

from importlib.metadata import version
from pathlib import Path

import pytest

from tequipy_platform.settings import variable_of
from tequipy_platform.settings.reference import settings_of
from tequipy_worker.settings import WorkerSettings

from .commands import GOOD, PRODUCTION, Worker

OWN_SECTIONS = {"celery", "mail", "worker"}


def test_a_check_of_the_settings_refuses_unknown_names(forked_worker: Worker, tmp_path: Path) -> None:
    """`settings --check` ends with 78 for an unknown exported name, and ignores variables of Kubernetes."""
    kubernetes = {"TEQUIPY_WORKER_SERVICE_HOST": "10.0.0.1", "TEQUIPY_WORKER_PORT": "tcp://10.0.0.1:80"}
    good = forked_worker("settings", "--check", cwd=tmp_path, **GOOD, **kubernetes)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    wrong = forked_worker("settings", "--check", cwd=tmp_path, **GOOD, TEQUIPY_CELERY__BROKR_URL="hunter2")
    assert wrong.returncode == 78
    hint = "did you mean TEQUIPY_CELERY__BROKER_URL?"
    assert wrong.stderr == f"TEQUIPY_CELERY__BROKR_URL: unknown name; {hint}\n"


def test_a_name_of_the_last_release_is_refused(forked_worker: Worker, tmp_path: Path) -> None:
    """An exported setting of 0.1.0 with another name now ends any command, and the line has the new name."""
    result = forked_worker("settings", cwd=tmp_path, **GOOD, TEQUIPY_AUTH__ALLOWED_ORIGINS='["https://a.example"]')
    line = "TEQUIPY_AUTH__ALLOWED_ORIGINS: unknown name; it is TEQUIPY_ALLOWED_ORIGINS now\n"
    assert (result.returncode, result.stderr) == (78, line)


def test_production_refuses_a_broker_in_the_database_of_the_cache(forked_worker: Worker, tmp_path: Path) -> None:
    """The broker must not use the cache's database, because clearing the cache would delete the tasks."""
    assert forked_worker("settings", cwd=tmp_path, **PRODUCTION).returncode == 0
    shared = PRODUCTION | {"TEQUIPY_CELERY__BROKER_URL": PRODUCTION["TEQUIPY_CACHE__URL"]}
    result = forked_worker("settings", cwd=tmp_path, **shared)
    assert result.returncode == 78
    assert "TEQUIPY_CELERY__BROKER_URL: should name another Redis database than the cache's" in result.stderr
    rabbitmq = PRODUCTION["TEQUIPY_CACHE__URL"].replace("redis", "amqp")  # the same host, port and path
    assert (
        forked_worker("settings", cwd=tmp_path, **(PRODUCTION | {"TEQUIPY_CELERY__BROKER_URL": rabbitmq})).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("TEQUIPY_DATABASE__URL", "postgresql+asyncpg://app@db:hunter2/app"),
        ("TEQUIPY_CACHE__URL", "redis://:hunter2/x@cache/0"),
        ("TEQUIPY_CELERY__BROKER_URL", "redis://:hunter2/x@broker/1"),
        ("TEQUIPY_MAIL__SMTP_URL", "smtps://user:hunter2/x@mail"),
    ],
)
def test_a_password_that_breaks_its_url_is_not_shown(
    name: str, url: str, forked_worker: Worker, tmp_path: Path
) -> None:
    """A password with an unencoded slash gives status 78 and advice, without a part of the password."""
    result = forked_worker("settings", cwd=tmp_path, **(PRODUCTION | {name: url}))
    assert result.returncode == 78
    assert "hunter2" not in result.stderr + result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}: ")
    assert "percent-encoded" in line


def test_settings_are_shown_without_secrets(forked_worker: Worker, tmp_path: Path) -> None:
    """`settings` shows the effective settings with masked passwords, and the connections that the processes need."""
    result = forked_worker("settings", cwd=tmp_path, **GOOD)
    budget = "run at most 34 (2 children of 17), beat at most 17, relay at most 18 (one listens)."
    assert result.stdout.splitlines()[-1] == f"# Connections to PostgreSQL of each process: {budget}"
    assert "TEQUIPY_CELERY__BROKER_URL=**********" in result.stdout.splitlines()
    assert "TEQUIPY_CELERY__VISIBILITY_TIMEOUT=600" in result.stdout.splitlines()
    assert "hunter2" not in result.stdout


def test_the_reference_has_the_rules_of_production(forked_worker: Worker, tmp_path: Path) -> None:
    """The worker alone has rules for broker, results and mail server, and production reports each by its words."""
    own = {each.path: each.rules for each in settings_of(WorkerSettings) if each.rules and each.path[0] in OWN_SECTIONS}
    assert sorted(own) == [("celery", "broker_url"), ("celery", "result_backend"), ("mail", "smtp_url")]
    unverified = "rediss://127.0.0.1/1?ssl_cert_reqs=none"
    unsafe = {"TEQUIPY_CELERY__BROKER_URL": unverified, "TEQUIPY_CELERY__RESULT_BACKEND": unverified}
    shared = {"TEQUIPY_CELERY__BROKER_URL": PRODUCTION["TEQUIPY_CACHE__URL"], "TEQUIPY_MAIL__SMTP_URL": ""}
    lines = [
        line
        for each in (unsafe, shared)
        for line in forked_worker("settings", cwd=tmp_path, **(PRODUCTION | each)).stderr.splitlines()
    ]
    assert sorted(lines) == sorted(
        f"{variable_of(WorkerSettings, path)}: {rule}" for path, rules in own.items() for rule in rules
    )


def test_the_version_is_that_of_the_package(forked_worker: Worker, tmp_path: Path) -> None:
    """`--version` needs no settings, and prints the version that the images and metrics have."""
    result = forked_worker("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"tequipy-worker, version {version('tequipy-worker')}\n")


def test_secrets_are_read_from_files(forked_worker: Worker, tmp_path: Path) -> None:
    """`NAME__FILE` replaces a secret in the environment."""
    (tmp_path / "broker_url").write_text(f"{GOOD['TEQUIPY_CELERY__BROKER_URL']}\n")
    given = {name: value for name, value in GOOD.items() if name != "TEQUIPY_CELERY__BROKER_URL"}
    result = forked_worker("settings", "--check", cwd=tmp_path, **given, TEQUIPY_CELERY__BROKER_URL__FILE="broker_url")
    assert (result.returncode, result.stderr) == (0, "")

"""The worker app: registered tasks and refused settings."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.forked import ForkedCommand
from tequipy_devstack.servers import PostgresServer
from tequipy_observability.wiring import Observability
from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.settings import variable_of
from tequipy_platform.settings.reference import settings_of
from tequipy_worker.app import build_runtime, create_worker, open_relay, open_scheduler
from tequipy_worker.catalogue import TASKS
from tequipy_worker.heartbeat import Heartbeat
from tequipy_worker.settings import WorkerSettings

OWN_SECTIONS = {"celery", "mail", "worker"}
GOOD = {
    "TEQUIPY_ENVIRONMENT": "test",
    "TEQUIPY_PUBLIC_URL": "https://app.example.com",
    "TEQUIPY_DATABASE__URL": "postgresql+asyncpg://app:hunter2@127.0.0.1:1/app",
    "TEQUIPY_CACHE__URL": "redis://:hunter2@127.0.0.1:1/0",
    "TEQUIPY_CELERY__BROKER_URL": "redis://:hunter2@127.0.0.1:1/1",
}
PRODUCTION = GOOD | {
    "TEQUIPY_ENVIRONMENT": "production",
    "TEQUIPY_AUTH__PEPPERS": '{"1": "a-pepper-of-more-than-32-characters!"}',
    "TEQUIPY_AUTH__REFRESH_KEYS": '{"1": "a-key-of-more-than-32-characters!!!"}',
    "TEQUIPY_AUTH__KEY_ENCRYPTION_KEY": "another-key-of-more-than-32-characters",
    "TEQUIPY_AUTH__PSEUDONYM_KEY": "yet-another-key-of-more-than-32-characters",
    "TEQUIPY_MAIL__SMTP_URL": "smtps://mail.example.com",
    "TEQUIPY_OBSERVABILITY__METRICS_PORT": "9100",
}


def worker(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in an empty folder with only these settings."""
    return subprocess.run(
        [Path(sys.executable).with_name("tequipy-worker"), *arguments],
        cwd=cwd,
        env=settings_alone(cwd, variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def settings_alone(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TMPDIR": str(folder)} | variables


Worker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def forked_worker(worker_command: ForkedCommand) -> Worker:
    """Return a function that does the same at lower costs, unless variables are read when modules are imported."""

    def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return worker_command.run(*arguments, environment=settings_alone(cwd, variables), folder=cwd)

    return run


# `health` reads one setting alone, so that a probe costs little and a fault of another setting kills no process that
# runs with the right ones: `test_health.py::test_a_state_folder_that_cannot_be_determined_is_one_line`.
@pytest.mark.parametrize("command", ["run", "beat", "relay", "settings", "messages"])
def test_wrong_settings_end_every_command(command: str, forked_worker: Worker, tmp_path: Path) -> None:
    """Wrong settings give status 78 and one line per fault without a value; a misspelt name in `.env` gets a hint."""
    (tmp_path / ".env").write_text("TEQUIPY_CELERY__BROKR_URL=redis://:hunter2@localhost/1\n")
    result = forked_worker(
        command, cwd=tmp_path, TEQUIPY_ENVIRONMENT="test", TEQUIPY_DATABASE__URL="mysql://hunter2@db/app"
    )
    assert result.returncode == 78
    lines = result.stderr.splitlines()
    assert "TEQUIPY_DATABASE__URL: URL scheme should be postgresql+asyncpg" in lines
    assert any(line.startswith("TEQUIPY_CELERY__BROKR_URL") and "TEQUIPY_CELERY__BROKER_URL" in line for line in lines)
    assert "hunter2" not in result.stderr + result.stdout


@pytest.mark.parametrize("command", ["run", "beat", "relay"])
def test_another_encoding_ends_a_command_at_once(
    command: str, postgres_server: PostgresServer, forked_worker: Worker, tmp_path: Path
) -> None:
    """A database that cannot store every text gives status 78 and one line."""
    name = f"ascii_{uuid4().hex}"
    options = "encoding 'SQL_ASCII' locale_provider libc locale 'C' template template0"
    postgres_server.execute(f"create database {name} {options}")
    result = forked_worker(command, cwd=tmp_path, **(GOOD | {"TEQUIPY_DATABASE__URL": postgres_server.url(name)}))
    postgres_server.drop_database(name)
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith("TEQUIPY_DATABASE__URL: the database's encoding is SQL_ASCII")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["beat", "relay", "settings"])
def test_a_missing_metrics_folder_is_one_line(command: str, tmp_path: Path) -> None:
    """If PROMETHEUS_MULTIPROC_DIR names no folder, a command ends with 78; `run` creates its own."""
    variables = GOOD | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")}
    result = worker(command, cwd=tmp_path, **variables)
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith("PROMETHEUS_MULTIPROC_DIR: should name a folder")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["run", "beat", "relay"])
def test_a_state_folder_that_cannot_be_made_is_one_line(command: str, forked_worker: Worker, tmp_path: Path) -> None:
    """A state folder that cannot be created gives status 78 and a line with the setting's name."""
    (tmp_path / "file").touch()
    variables = GOOD | {"TEQUIPY_WORKER__STATE_FOLDER": str(tmp_path / "file" / "state")}
    result = forked_worker(command, cwd=tmp_path, **variables)
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr == "TEQUIPY_WORKER__STATE_FOLDER: cannot be used: Not a directory\n"


def test_a_check_of_the_settings_refuses_unknown_names(forked_worker: Worker, tmp_path: Path) -> None:
    """`settings --check` ends with 78 for an unknown exported name, and ignores variables of Kubernetes."""
    kubernetes = {"TEQUIPY_WORKER_SERVICE_HOST": "10.0.0.1", "TEQUIPY_WORKER_PORT": "tcp://10.0.0.1:80"}
    good = forked_worker("settings", "--check", cwd=tmp_path, **GOOD, **kubernetes)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    wrong = forked_worker("settings", "--check", cwd=tmp_path, **GOOD, TEQUIPY_CELERY__BROKR_URL="hunter2")
    assert wrong.returncode == 78
    hint = "did you mean TEQUIPY_CELERY__BROKER_URL?"
    assert wrong.stderr == f"TEQUIPY_CELERY__BROKR_URL: unknown name; {hint}\n"


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


def test_the_worker_is_built_without_any_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Composing the worker opens no connection, and registers every task with its queue."""
    monkeypatch.chdir(tmp_path)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    celery = create_worker(WorkerSettings())
    ours = {name for name in celery.tasks if not name.startswith("celery.")}
    assert ours == {*(task.name for task in TASKS), "tequipy.foreign", "tequipy.unknown"}
    assert celery.conf.task_routes["auth.send_mail"] == {"queue": "email"}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WorkerSettings:
    monkeypatch.chdir(tmp_path)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return WorkerSettings()


def observe(settings: WorkerSettings) -> Observability:
    return Observability(settings.observability, CollectorRegistry())


async def test_relay_and_scheduler_build_no_services(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Scheduler, relay and the worker's parent build neither auth nor cache, mailer and storage; scheduler and
    relay build one database each.
    """
    built = []

    def build(settings: DatabaseSettings, **options: Any) -> Database:
        built.append(settings)
        return build_database(settings, **options)

    for name in ("build_auth", "build_cache", "build_mailer", "build_storage"):
        monkeypatch.setattr(f"tequipy_worker.app.{name}", mock.Mock(side_effect=AssertionError(name)))
    monkeypatch.setattr("tequipy_worker.app.build_database", build)
    create_worker(settings, observe(settings))
    assert built == []
    async with open_scheduler(settings, observe(settings), Heartbeat(tmp_path / "heartbeat")):
        assert built == [settings.database]
    built.clear()
    async with open_relay(settings, observe(settings), Heartbeat(tmp_path / "heartbeat")):
        assert built == [settings.database]


def test_every_task_has_a_handler(settings: WorkerSettings) -> None:
    """The handlers of a child process are those of the catalogue."""
    runtime = build_runtime(settings, observe(settings))
    assert set(runtime.handlers) == set(TASKS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("command", ["run", "beat", "relay"])
def test_a_folder_of_another_user_is_refused(command: str, forked_worker: Worker, tmp_path: Path) -> None:
    """A folder of another user is refused: its owner could forge heartbeats."""
    folder = tmp_path / "tequipy-worker"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    result = forked_worker(command, cwd=tmp_path, **GOOD)
    assert result.returncode == 1
    assert f"{folder} belongs to another user" in result.stderr
    assert "TEQUIPY_WORKER__STATE_FOLDER" in result.stderr


def test_an_unknown_queue_is_refused(forked_worker: Worker, tmp_path: Path) -> None:
    """`run --queues` names the queues that there are when one is unknown or none is given."""
    for queues in ("email,emial", ","):
        result = forked_worker("run", "--queues", queues, cwd=tmp_path, **GOOD)
        assert result.returncode == 2
        assert "there are default, email, reports, aggregation" in result.stderr
    assert "emial" in forked_worker("run", "--queues", "email,emial", cwd=tmp_path, **GOOD).stderr


def test_the_worker_does_not_import_fastapi() -> None:
    """Importing the worker imports no web framework, because its image has none."""
    code = "import sys, tequipy_worker.cli; print({'fastapi', 'starlette', 'uvicorn'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "set()"

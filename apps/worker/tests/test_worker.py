"""The worker app: registered tasks and refused settings."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.servers import PostgresServer
from tequipy_observability.wiring import Observability
from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_worker.app import build_runtime
from tequipy_worker.catalogue import TASKS
from tequipy_worker.heartbeat import Heartbeat
from tequipy_worker.relay import open_relay
from tequipy_worker.scheduler import open_scheduler
from tequipy_worker.settings import WorkerSettings
from tequipy_worker.worker import create_worker

from .commands import GOOD, Worker, worker


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
    for module in ("app", "relay", "scheduler"):
        monkeypatch.setattr(f"tequipy_worker.{module}.build_database", build)
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

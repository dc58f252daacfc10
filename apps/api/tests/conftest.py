"""Fixtures: the shipped app on a real PostgreSQL and Valkey, in this process, as a command or as a server."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_auth.tasks import build_handlers
from tequipy_devstack.proving.forked import ForkedCommand, ForkedProcess
from tequipy_platform import Delivery, Mail
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.settings import load_settings
from tequipy_platform.testing import RecordingMailer

from .instance import Instance, StartApi

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(database_url: str, redis_url: str, redis_prefix: str, tmp_path: Path) -> dict[str, str]:
    """Return the variables of a deployed app, with the servers of the test run."""
    return {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": database_url,
        "TEQUIPY_CACHE__URL": redis_url,
        "TEQUIPY_CACHE__PREFIX": redis_prefix,
        "TEQUIPY_STORAGE__URL": tmp_path.as_uri(),
        "TEQUIPY_AUTH__BCRYPT_COST": "4",  # these tests do not test hashing
    }


@pytest.fixture
def settings(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiSettings:
    """Return the app's settings, independent of the developer's environment and `.env`."""
    for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return load_settings(ApiSettings)


@pytest.fixture
async def app(settings: ApiSettings) -> AsyncIterator[FastAPI]:
    """Yield the app within its lifespan."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
        yield client


@pytest.fixture
def deliver_mails(app: FastAPI, database_url: str) -> Callable[[], Awaitable[list[Mail]]]:
    """Return a function that does the work of relay and worker: runs the task of each outbox row, returns the mails."""

    async def deliver() -> list[Mail]:
        mailer = RecordingMailer()
        handlers = {task.name: handler for task, handler in build_handlers(app.state.auth, mailer).items()}
        async with build_database(DatabaseSettings.model_validate({"url": database_url})) as database:
            async with database.sessions.begin() as session:
                rows = await session.execute(
                    text("update platform.outbox set published_at = now() where published_at is null returning *")
                )
            for row in rows.mappings():
                await handlers[row["task"]](Delivery(row["id"], row["task"]), **row["payload"])
        return mailer.mails

    return deliver


@pytest.fixture
def run_command(environment: dict[str, str], tmp_path: Path, api_command: ForkedCommand) -> Command:
    """Return a function that runs `tequipy-api` in an empty folder; `without` and `also` change its environment."""

    def run(
        *arguments: str, stdin: str = "", without: tuple[str, ...] = (), **also: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
        variables = {name: value for name, value in (environment | also).items() if name not in without}
        return api_command.run(*arguments, environment=inherited | variables, folder=tmp_path, stdin=stdin)

    return run


@pytest.fixture
def start_api(
    environment: dict[str, str], tmp_path: Path, free_port: Callable[[], int], api_command: ForkedCommand
) -> Iterator[StartApi]:
    """Return a function that starts `tequipy-api serve` on its own port or `port`; `also` changes its environment.

    `before` is a shell command that runs before the server replaces the shell: `exec >&-` or `ulimit -n 1024`. Without
    it the server is a fork of a process that has imported it.
    """
    instances: list[Instance] = []

    def start(*, port: int | None = None, before: str | None = None, **also: str) -> Instance:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
        port, log = port or free_port(), tmp_path / f"api-{len(instances)}.log"
        arguments, variables = ("serve", "--port", str(port)), inherited | environment | also
        process: ForkedProcess | subprocess.Popen[bytes]
        if before is None:
            files = log.with_suffix(".process")
            process = api_command.start(*arguments, environment=variables, folder=tmp_path, log=log, files=files)
        else:
            program = Path(sys.executable).with_name("tequipy-api")
            with log.open("wb") as output:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", f'{before}; exec "$0" "$@"', program, *arguments],
                    env=variables,
                    cwd=tmp_path,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        instances.append(Instance(process, port, log))
        return instances[-1]

    yield start
    for instance in instances:
        instance.process.kill()
        instance.process.wait()

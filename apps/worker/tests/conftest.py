"""Fixtures of the worker's tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tequipy_devstack.processes import freeze_family, kill
from tequipy_devstack.proving.forked import ForkedCommand
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.tables import create_tables

from .commands import Worker, settings_alone
from .shell import Shell

PROGRAM = Path(__file__).with_name("chain_program.py")


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    """Return the variables of a worker without its broker; none of ours are inherited."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    return inherited | {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": database_url,
        "TEQUIPY_CACHE__URL": redis_url,
    }


@pytest.fixture
def chain(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that starts a worker and a relay of `chain_program.py` on a broker; they stop with the test."""
    started = []

    def start(broker_url: str) -> None:
        for role in ("run", "relay"):
            with (tmp_path / f"{role}.log").open("wb") as log:
                command: list[str | Path] = [sys.executable, PROGRAM, role, tmp_path]
                variables = environment | {"TEQUIPY_CELERY__BROKER_URL": broker_url}
                started.append(subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=log))

    yield start
    for process in started:
        kill(freeze_family(process.pid))
        process.wait()


@pytest.fixture
def shell(environment: dict[str, str], redis_url: str, redis_prefix: str, tmp_path: Path) -> Iterator[Shell]:
    """Yield commands on the servers that all tests share."""
    variables = {"TEQUIPY_CELERY__BROKER_URL": redis_url, "TEQUIPY_CACHE__PREFIX": redis_prefix}
    commands = Shell(environment | variables, tmp_path)
    yield commands
    commands.end()


@pytest.fixture
def private_shell(private_postgres: PostgresServer, private_redis: ValkeyServer, tmp_path: Path) -> Iterator[Shell]:
    """Yield commands on servers that the test may freeze."""
    url = private_postgres.create_database("tequipy")
    with ThreadPoolExecutor(1) as thread:  # an asynchronous test has a running event loop
        thread.submit(create_tables, url).result()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    variables = {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": url,
        "TEQUIPY_CACHE__URL": private_redis.url(0),
        "TEQUIPY_CELERY__BROKER_URL": private_redis.url(1),
    }
    commands = Shell(inherited | variables, tmp_path)
    yield commands
    for server in (private_postgres, private_redis):
        server.thaw()
    commands.end()


@pytest.fixture
def forked_worker(worker_command: ForkedCommand) -> Worker:
    """Return a function that does the same at lower costs, unless variables are read when modules are imported."""

    def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return worker_command.run(*arguments, environment=settings_alone(cwd, variables), folder=cwd)

    return run

"""Fixtures of the worker's tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tequipy_devstack.processes import freeze_family, kill

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

"""One correlation id and one trace along a chain of tasks, in real processes of worker and relay."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tequipy_observability import RequestContext, request_context
from tequipy_platform import SystemClock
from tequipy_platform.infrastructure.database import SqlUnitOfWork
from tequipy_platform.wiring import DatabaseSettings, build_database, uuid7

PROGRAM = Path(__file__).with_name("chain_program.py")
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def _processes(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    environment |= {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": database_url,
        "TEQUIPY_CACHE__URL": redis_url,
        "TEQUIPY_CELERY__BROKER_URL": redis_url,
    }
    started = []
    for role in ("run", "relay"):
        with (tmp_path / f"{role}.log").open("wb") as log:
            command: list[str | Path] = [sys.executable, PROGRAM, role, tmp_path]
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log))
    yield
    for process in started:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in family:
            child.kill()
        process.wait()


@pytest.mark.usefixtures("_processes")
async def test_what_a_task_causes_is_part_of_its_chain(database_url: str, tmp_path: Path) -> None:
    """A request's id and trace are those of the task it asks for, of what that adds, publishes and sends, and of each
    further attempt; every line that the worker writes of them says so.
    """
    async with build_database(DatabaseSettings.model_validate({"url": database_url})) as database:
        with request_context(RequestContext(correlation_id="the-request", traceparent=TRACE)):
            async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
                work.outbox.add("chain.begin")
    notes, deadline = tmp_path / "notes", time.monotonic() + 60
    while not notes.exists() or len(notes.read_text().splitlines()) < 7:
        assert time.monotonic() < deadline, (tmp_path / "run.log").read_text()
        time.sleep(0.05)  # noqa: ASYNC251 -- nothing else runs here
    found = sorted(json.loads(line) for line in notes.read_text().splitlines())
    hows = ("added", "heard", "sent")
    ends: list[list[Any]] = [[f"chain.{how}", attempt, "the-request", TRACE] for how in hows for attempt in (1, 2)]
    assert found == sorted([["chain.begin", 1, "the-request", TRACE], *ends])
    lines = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    told = [line for line in lines if "task_name" in line]
    assert {line["task_name"] for line in told} == {"chain.begin", "chain.added", "chain.heard", "chain.sent"}
    assert {(line["correlation_id"], line["trace_id"]) for line in told} == {("the-request", "a" * 32)}

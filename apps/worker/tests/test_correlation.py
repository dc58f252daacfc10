"""Correlation id and trace along a chain of tasks, in real worker and relay processes."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tequipy_observability import RequestContext, request_context
from tequipy_platform import SystemClock
from tequipy_platform.database import DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


async def test_tasks_carry_the_context_of_their_cause(
    chain: Callable[[str], None], database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """All tasks that a request causes, and all their attempts, have its correlation id and trace in context and log."""
    chain(redis_url)
    async with build_database(DatabaseSettings.model_validate({"url": database_url})) as database:
        with request_context(RequestContext(correlation_id="the-request", traceparent=TRACE)):
            async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
                work.outbox.add("chain.begin")
    notes, deadline = tmp_path / "notes", time.monotonic() + 60
    while not notes.exists() or len(notes.read_text().splitlines()) < 5:
        assert time.monotonic() < deadline, (tmp_path / "run.log").read_text()
        time.sleep(0.05)  # noqa: ASYNC251 -- no other coroutine runs here
    found = sorted(json.loads(line) for line in notes.read_text().splitlines())
    hows = ("added", "subscribed")
    ends: list[list[Any]] = [[f"chain.{how}", attempt, "the-request", TRACE] for how in hows for attempt in (1, 2)]
    assert found == sorted([["chain.begin", 1, "the-request", TRACE], *ends])
    lines = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    logged = [line for line in lines if "task_name" in line]
    assert {line["task_name"] for line in logged} == {"chain.begin", "chain.added", "chain.subscribed"}
    assert {(line["correlation_id"], line["trace_id"]) for line in logged} == {("the-request", "a" * 32)}

"""Whatever a handler raises is one failed attempt, and ends neither its process nor the worker."""

import importlib.util
from pathlib import Path

import pytest

from .worker_under_test import WorkerUnderTest

PROGRAM = Path(__file__).with_name("worker_program.py")


def test_nothing_that_a_handler_raises_ends_a_worker(worker: WorkerUnderTest) -> None:
    """Each kind of error, `SystemExit` and `MemoryError` included, fails one attempt, and then makes a dead letter."""
    spec = importlib.util.spec_from_file_location("worker_program", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = {error: worker.send("test.fail_by", error=error) for error in module.ERRORS}
    for row_id in rows.values():
        worker.publish_again(row_id)
    for error, row_id in rows.items():
        row = worker.until_state(row_id, "dead")
        assert row["error"].startswith(error.replace("StopIteration", "RuntimeError")), error
        assert (row["attempts"], row["failed_attempts"], row["deaths"]) == (2, 2, 0), error
    assert len({line["pid"] for line in worker.events("opened")}) == 1, "no child was replaced"
    assert worker.processes[0].poll() is None


@pytest.mark.parametrize("payload", [{"self": "x"}, {"delivery": 1}, {"word": "a", "new": 1}, {}])
def test_a_payload_that_the_handler_does_not_accept_waits_for_a_newer_release(
    worker: WorkerUnderTest, payload: dict[str, object]
) -> None:
    """It is kept for an hour, is then a dead letter, and counts as no failed attempt."""
    row_id = worker.add("test.note", payload)
    worker.deliver(row_id, "test.note")
    row = worker.until_state(row_id, "failed")
    assert "does not accept the payload" in row["error"]
    assert row["failed_attempts"] == 0
    worker.change(row_id, "waiting_since = now() - interval '1 hour'")
    worker.publish_again(row_id)
    worker.until_state(row_id, "dead")
    assert worker.events("note") == []


def test_a_message_of_a_newer_format_waits(worker: WorkerUnderTest) -> None:
    """A row whose format is newer than the release is left to a newer one."""
    row_id = worker.add("test.note", {"word": "x"}, schema_version="2")
    worker.deliver(row_id, "test.note")
    assert "format 2" in worker.until_state(row_id, "failed")["error"]

"""Tasks on a real worker, a real broker and a real database: context, outcomes, retries, limits, deaths."""

from pathlib import Path
from uuid import uuid4

from redis import Redis

from .worker_under_test import WorkerUnderTest


def test_a_task_runs_in_the_context_of_its_message(worker: WorkerUnderTest) -> None:
    """The handler gets the payload and id of the row, and runs with the row's correlation id."""
    row_id = worker.add("test.note", {"word": "hello"}, correlation_id="'abc'")
    worker.deliver(row_id, "test.note")
    (note,) = worker.until("note")
    assert (note["id"], note["word"], note["correlation_id"], note["task"]) == (row_id, "hello", "abc", "test.note")


def test_resources_open_once_for_each_child_and_close_with_it(worker: WorkerUnderTest) -> None:
    """Two tasks of one child process share the resources, which are closed when the worker stops."""
    worker.send("test.note", word="one")
    worker.send("test.note", word="two")
    notes = worker.until("note", times=2)
    opened = worker.events("opened")
    assert {line["pid"] for line in notes} == {line["pid"] for line in opened}
    assert len(opened) == 1
    worker.stop()
    assert len(worker.events("closed")) == 1


def test_the_outcome_of_each_message_is_recorded(worker: WorkerUnderTest) -> None:
    """A message is done, failed or dead, with time, place and error of each failed attempt."""
    good, failing, refused = (
        worker.send("test.note", word="a"),
        worker.send("test.fail_once"),
        worker.send("test.refuse"),
    )
    assert worker.until_state(good, "done")["settled_at"]
    assert worker.until_state(refused, "dead")["error"] == "LookupError: for good"
    assert worker.log().count("LookupError: for good") == 1, "logged once"
    worker.until_state(failing, "failed")
    (attempt,) = worker.attempts(failing)
    assert (attempt["number"], attempt["error"]) == (1, "RuntimeError: the first attempt fails")
    assert attempt["worker"].endswith(f":{worker.events('fail_once')[0]['pid']}")
    assert attempt["started_at"] < attempt["ended_at"]
    worker.publish_again(failing)
    row = worker.until_state(failing, "done")
    assert (row["attempts"], row["failed_attempts"], row["error"]) == (2, 1, None)
    assert [line["attempt"] for line in worker.events("fail_once")] == [1, 2]


def test_a_soft_limit_during_the_handling_of_an_error_loses_nothing(worker: WorkerUnderTest) -> None:
    """If the soft limit's signal arrives while a failed attempt is being handled, its outcome is recorded."""
    row_id = worker.send("test.be_interrupted_once")
    worker.publish_again(row_id)
    worker.until_state(row_id, "done")


def in_broker(worker: WorkerUnderTest) -> int:
    """Return the number of messages in the broker, delivered ones included."""
    with Redis.from_url(worker.broker_url) as redis:
        return int(redis.llen("default")) + int(redis.hlen("unacked"))


def test_a_failed_message_waits_in_the_outbox(worker: WorkerUnderTest) -> None:
    """A failed message is not kept in the broker, and its policy's lifetime counts from its first failure."""
    first = worker.send("test.fail")
    worker.until_state(first, "failed")
    young = worker.add("test.fail", failing_since="now() - interval '23 hours'", failed_attempts="70")
    old = worker.add("test.fail", failing_since="now() - interval '24 hours'", failed_attempts="70")
    for row_id in (young, old):
        worker.deliver(row_id, "test.fail")
    assert worker.until_state(young, "failed")["failed_attempts"] == 71
    assert worker.until_state(old, "dead")["failed_attempts"] == 71
    worker.until_state(worker.send("test.note", word="after"), "done")
    while in_broker(worker):
        pass


def test_an_old_copy_of_a_message_does_nothing(worker: WorkerUnderTest) -> None:
    """A second copy of a message that is done, dead, or waits for its next attempt is not run."""
    rows = [
        worker.add("test.note", {"word": "no"}, state=f"'{state}'", not_before="now() + interval '1 hour'")
        for state in ("done", "dead", "discarded", "failed", "pending")
    ]
    for row_id in rows:
        worker.deliver(row_id, "test.note")
    worker.until_state(worker.send("test.note", word="after"), "done")
    assert [line["word"] for line in worker.events("note")] == ["after"]
    assert [worker.row(row_id)["attempts"] for row_id in rows] == [0] * 5


def test_a_message_that_the_relay_could_not_mark_runs(worker: WorkerUnderTest) -> None:
    """A message that is in the broker although its row is still due runs: the relay died before it recorded this."""
    row_id = worker.add("test.note", {"word": "early"}, state="'pending'", published_at="null")
    worker.deliver(row_id, "test.note")
    worker.until_state(row_id, "done")


def test_the_soft_limit_cancels_the_coroutine_and_awaits_it(worker: WorkerUnderTest) -> None:
    """A task over its soft limit, its own or the worker's, is cancelled, and cleans up before the next one starts."""
    for number, task in enumerate(("test.overrun", "test.overrun_by_default"), start=1):
        row_id = worker.send(task)
        worker.until_state(worker.send("test.note", word="after"), "done")
        assert worker.row(row_id)["state"] == "dead"
        assert worker.row(row_id)["error"] == "the attempt exceeded its time limit"
        assert len(worker.events("cancelled")) == len(worker.events("cleaned_up")) == number


def test_the_message_of_a_killed_child_is_delivered_again(worker: WorkerUnderTest) -> None:
    """After `kill -9` of the child process another one runs the task, and the death is a failed attempt."""
    row_id = worker.add("test.die_once", correlation_id="'abc'")
    worker.deliver(row_id, "test.die_once")
    lines = worker.until("die_once", times=2)
    assert {(line["id"], line["correlation_id"]) for line in lines} == {(row_id, "abc")}
    assert len({line["pid"] for line in lines}) == 2
    row = worker.until_state(row_id, "done")
    assert (row["attempts"], row["deaths"]) == (2, 1)
    (attempt,) = worker.attempts(row_id)
    assert (attempt["error"], attempt["ended_at"]) == ("the process of this attempt ended without an outcome", None)
    assert "task_process_died" in worker.log()


def test_a_task_that_always_dies_becomes_a_dead_letter(worker: WorkerUnderTest) -> None:
    """A task that kills its process runs as often as its policy allows, and the log names task and message."""
    row_id = worker.send("test.always_die")
    while worker.until_state(row_id, "failed", "dead")["state"] != "dead":
        worker.publish_again(row_id)
    row = worker.row(row_id)
    assert (len(worker.events("always_die")), row["deaths"]) == (3, 3)
    assert row["error"] == "its process ended 3 times without an outcome"
    assert [line["attempt"] for line in worker.events("always_die")] == [1, 2, 3]


def test_the_message_of_a_killed_worker_is_delivered_again(worker: WorkerUnderTest) -> None:
    """After `kill -9` of the whole worker, the next worker runs the task with the same id."""
    row_id = worker.send("test.hang_once")
    worker.until("hang_once")
    worker.kill()
    worker.start()
    lines = worker.until("hang_once", times=2)
    assert {line["id"] for line in lines} == {row_id}


def test_a_worker_whose_handlers_cannot_be_built_ends(worker: WorkerUnderTest, tmp_path: Path) -> None:
    """A failing `build` ends the worker, so that its supervisor notices, and a message waits for the next worker."""
    worker.until_state(worker.send("test.note", word="first"), "done")
    worker.stop()
    (tmp_path / "broken").touch()
    process = worker.start()
    worker.send("test.note", word="second")
    process.wait(30)
    assert "the handlers cannot be built" in worker.log()
    assert len(worker.events("note")) == 1
    (tmp_path / "broken").unlink()
    worker.start()
    worker.until("note", times=2)


def test_a_stopping_worker_hands_its_task_back(worker: WorkerUnderTest) -> None:
    """A task that runs longer than the worker may is cancelled and handed back: the next worker runs it at once."""
    row_id = worker.send("test.hang_once")
    worker.until("hang_once")
    worker.stop()
    row = worker.row(row_id)
    assert (row["state"], row["deaths"]) == ("published", 0)
    worker.start()
    worker.until("hang_once", times=2)
    assert worker.until_state(row_id, "done")["failed_attempts"] == 0


def test_a_message_that_is_not_from_the_outbox_becomes_a_dead_letter(worker: WorkerUnderTest) -> None:
    """A message whose id is in no row, or is no id, is stored and logged."""
    unknown = str(uuid4())
    worker.deliver(unknown, "test.note")
    worker.deliver("not an id", "test.note")
    worker.until_state(worker.send("test.note", word="after"), "done")
    query = "select error from platform.outbox where state = 'dead' and task = 'tequipy.foreign' order by error"
    foreign, missing = worker.sql(query).splitlines()
    assert foreign.startswith("foreign body, with an id that is no UUID; ")
    assert missing == f"message {unknown} is not in the outbox"

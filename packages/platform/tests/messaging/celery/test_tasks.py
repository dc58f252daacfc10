"""Tasks on a real worker and a real broker: context, delivery, retries, limits, and recovery after kill -9."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.schedules import crontab
from pydantic import SecretStr
from redis import Redis

from tequipy_devstack.processes import freeze_family, kill
from tequipy_observability import MESSAGE_CORRELATION_HEADER
from tequipy_platform import Crontab, Delivery, Task
from tequipy_platform.messaging.celery import CelerySettings, build_celery
from tequipy_platform.messaging.celery.child import check_handlers
from tequipy_platform.messaging.celery.headers import ATTEMPTS_HEADER, FAILING_HEADER


@dataclass
class WorkerUnderTest:
    """A real worker process, and the app that sends messages to it."""

    program: Path
    broker_url: str
    folder: Path
    celery: Celery
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, self.program, self.broker_url, str(self.folder)], stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """`kill -9` the worker and its children."""
        for process in self.processes:
            if process.poll() is None:
                kill(freeze_family(process.pid))
                process.wait()

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(15)

    def send(
        self, task: str, *, task_id: str | None = None, headers: dict[str, Any] | None = None, **payload: str
    ) -> str:
        task_id = task_id or str(uuid4())
        self.celery.send_task(task, kwargs=payload, task_id=task_id, headers=headers or {}, queue="default")
        return task_id

    def events(self, event: str) -> list[dict[str, Any]]:
        file = self.folder / "events"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line["event"] == event]

    def until(self, event: str, *, times: int = 1, within: float = 30) -> list[dict[str, Any]]:
        """Wait until an event has happened `times` times, and return all its occurrences."""
        deadline = time.monotonic() + within
        while len(self.events(event)) < times:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)
        return self.events(event)


@pytest.fixture
def worker(
    redis_url: str, tmp_path: Path, program: Path, build_worker: Callable[[str, Path], Celery]
) -> Iterator[WorkerUnderTest]:
    celery = build_worker(redis_url, tmp_path)
    running = WorkerUnderTest(program, redis_url, tmp_path, celery)
    running.start()
    try:
        yield running
    finally:
        running.kill()
        celery.close()


def test_a_task_runs_in_the_context_of_its_message(worker: WorkerUnderTest) -> None:
    """The handler gets the message's id in its delivery, and runs with the message's correlation id."""
    task_id = worker.send("test.note", word="hello", headers={MESSAGE_CORRELATION_HEADER: "abc"})
    (note,) = worker.until("note")
    assert (note["id"], note["word"], note["correlation_id"], note["task"]) == (task_id, "hello", "abc", "test.note")


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


def test_a_failed_attempt_is_followed_by_another_with_the_same_id(worker: WorkerUnderTest) -> None:
    """A retry keeps the delivery's id and correlation id, and increments the attempt."""
    task_id = worker.send("test.fail_once", headers={MESSAGE_CORRELATION_HEADER: "abc"})
    attempts = worker.until("fail_once", times=2)
    assert [(line["id"], line["attempt"], line["correlation_id"]) for line in attempts] == [
        (task_id, 1, "abc"),
        (task_id, 2, "abc"),
    ]


def test_attempts_share_a_correlation_id_that_none_was_sent_with(worker: WorkerUnderTest) -> None:
    """A scheduled message has no correlation id; the one created by its first attempt is kept by the next."""
    worker.send("test.fail_once")
    first, second = worker.until("fail_once", times=2)
    assert first["correlation_id"] == second["correlation_id"] is not None


def test_a_soft_limit_during_the_handling_of_an_error_loses_nothing(worker: WorkerUnderTest) -> None:
    """If the soft limit's signal arrives while a failed attempt's retry is being stored, the retry still happens."""
    task_id = worker.send("test.be_interrupted_once")
    attempts = worker.until("be_interrupted_once", times=2)
    assert [(line["id"], line["attempt"]) for line in attempts] == [(task_id, 1), (task_id, 2)]


def test_a_permanent_error_is_not_retried(worker: WorkerUnderTest) -> None:
    """An error that the policy lists as permanent ends the task after its first attempt."""
    worker.send("test.refuse")
    worker.until("refuse")
    worker.send("test.note", word="after")
    worker.until("note")
    assert [line["attempt"] for line in worker.events("refuse")] == [1]
    assert (worker.folder / "log").read_text().count("LookupError: for good") == 1  # logged once


def test_the_outcome_of_each_message_is_recorded(worker: WorkerUnderTest) -> None:
    """A message is settled when it succeeds or fails for good, and scheduled for a retry otherwise."""
    good, failing, refused = (
        worker.send("test.note", word="a"),
        worker.send("test.fail_once"),
        worker.send("test.refuse"),
    )
    settled = worker.until("settled", times=3)
    assert {line["id"] for line in settled} == {good, failing, refused}
    assert [line["id"] for line in worker.events("retried")] == [failing]


def in_broker(worker: WorkerUnderTest) -> int:
    """Return the number of messages in the broker, delivered ones included."""
    with Redis.from_url(worker.broker_url) as redis:
        return int(redis.llen("default")) + int(redis.hlen("unacked"))


def test_a_failed_message_waits_in_the_outbox(worker: WorkerUnderTest) -> None:
    """A failed message of the outbox is not kept in the broker; the relay sends it with its number of failures."""
    task_id = str(uuid4())
    (worker.folder / "outbox").write_text(task_id)
    worker.send("test.fail", task_id=task_id, headers={ATTEMPTS_HEADER: 0})
    (retried,) = worker.until("retried")
    assert (retried["id"], retried["known"]) == (task_id, True)
    worker.send("test.note", word="after")
    worker.until("note")
    deadline = time.monotonic() + 10
    while in_broker(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.send("test.fail", task_id=task_id, headers={ATTEMPTS_HEADER: 7, FAILING_HEADER: time.time() - 3600})
    first, second = worker.until("fail", times=2)
    assert (first["attempt"], second["attempt"]) == (1, 8)
    assert len(worker.until("retried", times=2)) == 2, "its policy has a lifetime: attempts do not end it"


def test_a_message_is_settled_when_its_policys_lifetime_is_over(worker: WorkerUnderTest) -> None:
    """A day after its first failure a message is settled, logged as an error, and not retried."""
    task_id = str(uuid4())
    (worker.folder / "outbox").write_text(task_id)
    worker.send("test.fail", task_id=task_id, headers={ATTEMPTS_HEADER: 7, FAILING_HEADER: time.time() - 86400})
    (settled,) = worker.until("settled")
    assert settled["id"] == task_id
    assert worker.events("retried") == []
    assert "task_failed" in (worker.folder / "log").read_text()


def test_a_scheduled_message_is_retried_by_the_broker(worker: WorkerUnderTest) -> None:
    """A message of the scheduler has no outbox row, so the broker retries it up to the policy's attempts."""
    worker.send("test.fail")
    worker.until("settled")
    assert [line["attempt"] for line in worker.events("fail")] == [1, 2]
    assert [line["known"] for line in worker.events("retried")] == [False]


@pytest.mark.parametrize("task", ["test.overrun", "test.overrun_by_default"])
def test_the_soft_limit_cancels_the_coroutine_and_awaits_it(worker: WorkerUnderTest, task: str) -> None:
    """A task over its soft limit, its own or the worker's, is cancelled, and cleans up before the next one starts."""
    worker.send(task)
    worker.send("test.note", word="after")
    worker.until("note")
    assert len(worker.events("cancelled")) == 1
    assert len(worker.events("cleaned_up")) == 1


def test_the_message_of_a_killed_child_is_delivered_again(worker: WorkerUnderTest) -> None:
    """After `kill -9` of the child process, another one runs the task with the same id and correlation id."""
    task_id = worker.send("test.die_once", headers={MESSAGE_CORRELATION_HEADER: "abc"})
    lines = worker.until("die_once", times=2)
    assert {(line["id"], line["correlation_id"]) for line in lines} == {(task_id, "abc")}
    assert len({line["pid"] for line in lines}) == 2


def test_the_message_of_a_killed_worker_is_delivered_again(worker: WorkerUnderTest) -> None:
    """After `kill -9` of the whole worker, the next worker runs the task with the same id."""
    task_id = worker.send("test.hang_once")
    worker.until("hang_once")
    worker.kill()
    worker.start()
    lines = worker.until("hang_once", times=2)
    assert {line["id"] for line in lines} == {task_id}


def test_a_worker_whose_handlers_cannot_be_built_ends(worker: WorkerUnderTest, tmp_path: Path) -> None:
    """A failing `build` ends the worker, so that its supervisor notices, and a message waits for the next worker."""
    worker.send("test.note", word="first")
    worker.until("note")
    worker.stop()
    (tmp_path / "broken").touch()
    process = worker.start()
    worker.send("test.note", word="second")
    process.wait(30)
    assert "the handlers cannot be built" in (tmp_path / "log").read_text()
    assert len(worker.events("note")) == 1
    (tmp_path / "broken").unlink()
    worker.start()
    worker.until("note", times=2)


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (Task("test.slow", time_limit=timedelta(minutes=10)), "time limit.*setting visibility_timeout"),
        (Task("test.hasty", time_limit=timedelta(seconds=9)), "time limit.*at least 10 s"),
    ],
)
def test_a_task_whose_times_do_not_fit_the_broker_is_refused(task: Task, what: str) -> None:
    """A task whose message could be delivered twice at once, or lost with its process, is refused in every process."""
    with pytest.raises(ValueError, match=f"{task.name}.*{what}"):
        build_celery(CelerySettings(broker_url=SecretStr("redis://localhost:1")), [task], name="test")


def test_a_scheduler_knows_queues_and_schedules() -> None:
    """A scheduled task is sent to its queue, no other task is sent, and only queues of tasks and given ones exist."""
    tasks = [
        Task("test.hourly", every=timedelta(hours=1), queue="reports"),
        Task("test.monday", every=Crontab(minute="30", hour="6", day_of_week="1")),
        Task("test.asked_for"),
    ]
    settings = CelerySettings(broker_url=SecretStr("redis://localhost:1"))
    celery = build_celery(settings, tasks, name="test", queues=["email"])
    schedule = celery.conf.beat_schedule
    assert sorted(schedule) == ["test.hourly", "test.monday"]
    assert celery.conf.task_routes["test.hourly"] == {"queue": "reports"}
    assert schedule["test.monday"]["schedule"] == crontab(minute="30", hour="6", day_of_week="1")
    assert [queue.name for queue in celery.conf.task_queues] == ["default", "email", "reports"]


async def nothing(_: Delivery) -> None:
    """Do nothing."""


def test_tasks_and_handlers_are_the_same() -> None:
    """A task without a handler, and a handler for an undeclared task, are refused by name."""
    declared, undeclared = Task("test.declared"), Task("test.undeclared")
    with pytest.raises(ValueError, match=r"test\.declared, test\.undeclared"):
        check_handlers([declared], {undeclared: nothing})

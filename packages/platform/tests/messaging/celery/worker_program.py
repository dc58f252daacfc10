"""A worker with a few small tasks, started by the tests in a fork with the arguments BROKER FOLDER DATABASE."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown
from pydantic import SecretStr

from tequipy_observability import current_context
from tequipy_platform import Delivery, RetryPolicy, Task
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.messaging import build_message_log
from tequipy_platform.messaging.celery import CelerySettings, TaskRuntime, build_celery, run_worker, wire_tasks


class InterruptingError(Exception):
    """An error during whose handling the soft time limit's signal arrives."""

    def __str__(self) -> str:
        os.kill(os.getpid(), signal.SIGUSR1)
        return "interrupted"


class UnprintableError(Exception):
    """An error without any text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


ERRORS = {
    "MemoryError": MemoryError(),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "CancelledError": asyncio.CancelledError(),
    "StopIteration": StopIteration(),
    "BaseExceptionGroup": BaseExceptionGroup("several", [KeyboardInterrupt()]),
    "UnprintableError": UnprintableError(),
    "Reject": Reject("no", requeue=True),
    "Retry": Retry("later"),
    "Ignore": Ignore(),
    "WorkerShutdown": WorkerShutdown(),
    "WorkerLostError": WorkerLostError("lost"),
    "SoftTimeLimitExceeded": SoftTimeLimitExceeded(),
}
"""What a handler may raise, by the name under which a message asks for it."""


class Tasks:
    """Handlers that append what happens to a file, as lines of JSON."""

    def __init__(self, folder: Path) -> None:
        self._events = folder / "events"

    def write(self, event: str, **facts: object) -> None:
        line = json.dumps({"event": event, "pid": os.getpid(), **facts})
        with self._events.open("a") as file:
            file.write(line + "\n")

    @asynccontextmanager
    async def resource(self) -> AsyncIterator[None]:
        self.write("opened")
        yield
        self.write("closed")

    async def note(self, delivery: Delivery, *, word: str) -> None:
        context = current_context()
        self.write(
            "note", word=word, id=str(delivery.id), correlation_id=context.correlation_id, task=context.task_name
        )

    async def die_once(self, delivery: Delivery) -> None:
        self.write("die_once", id=str(delivery.id), correlation_id=current_context().correlation_id)
        if self._events.read_text().count('"die_once"') == 1:
            os.kill(os.getpid(), 9)

    async def hang_once(self, delivery: Delivery) -> None:
        self.write("hang_once", id=str(delivery.id))
        if self._events.read_text().count('"hang_once"') == 1:
            await asyncio.sleep(60)

    async def overrun(self, delivery: Delivery) -> None:  # noqa: ARG002
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.write("cancelled")
            await asyncio.sleep(0.2)
            self.write("cleaned_up")
            raise

    async def fail_once(self, delivery: Delivery) -> None:
        correlation_id = current_context().correlation_id
        self.write("fail_once", id=str(delivery.id), attempt=delivery.attempt, correlation_id=correlation_id)
        if delivery.attempt == 1:
            raise RuntimeError("the first attempt fails")

    async def be_interrupted_once(self, delivery: Delivery) -> None:
        self.write("be_interrupted_once", id=str(delivery.id), attempt=delivery.attempt)
        if delivery.attempt == 1:
            raise InterruptingError

    async def fail_by(self, delivery: Delivery, *, error: str) -> None:
        self.write("fail_by", error=error, attempt=delivery.attempt)
        raise ERRORS[error]

    async def always_die(self, delivery: Delivery) -> None:
        self.write("always_die", attempt=delivery.attempt)
        os.kill(os.getpid(), 9)

    async def fail(self, delivery: Delivery) -> None:
        self.write("fail", id=str(delivery.id), attempt=delivery.attempt)
        raise RuntimeError("every attempt fails")

    async def refuse(self, delivery: Delivery) -> None:
        self.write("refuse", attempt=delivery.attempt)
        raise LookupError("for good")


LIMIT = timedelta(seconds=10)
QUICK = RetryPolicy(base=timedelta(milliseconds=50), permanent=(LookupError,))
ONCE = RetryPolicy(attempts=1)
TASKS = (
    Task("test.note", on=("test.noted",)),
    Task("test.note_too", on=("test.noted",), queue="email"),
    Task("test.die_once", time_limit=LIMIT),
    Task("test.always_die", retry=RetryPolicy(base=timedelta(milliseconds=50), deaths=3)),
    Task("test.hang_once", time_limit=LIMIT),
    Task("test.overrun", time_limit=LIMIT, retry=ONCE),
    Task("test.overrun_by_default", retry=ONCE),
    Task("test.fail_once", time_limit=LIMIT, retry=QUICK),
    Task("test.be_interrupted_once", time_limit=LIMIT, retry=QUICK),
    Task("test.refuse", time_limit=LIMIT, retry=QUICK),
    Task("test.fail", time_limit=LIMIT, retry=RetryPolicy(lifetime=timedelta(hours=24))),
    Task("test.fail_by", retry=RetryPolicy(base=timedelta(milliseconds=50), attempts=2)),
)


def build_runtime(folder: Path, database_url: str) -> TaskRuntime:
    """Return the handlers; fails if the folder has a file named `broken`."""
    if (folder / "broken").exists():
        raise OSError("the handlers cannot be built")
    tasks = Tasks(folder)
    same = {"note_too": "note", "overrun_by_default": "overrun"}
    names = {task: task.name.removeprefix("test.") for task in TASKS}
    handlers = {task: getattr(tasks, same.get(name, name)) for task, name in names.items()}
    database = build_database(DatabaseSettings(url=SecretStr(database_url)))
    messages = build_message_log(database, redelivery=timedelta(seconds=12))
    return TaskRuntime(handlers, messages, resources=[database, tasks.resource()])


def build_worker(broker_url: str, folder: Path, database_url: str = "") -> Celery:
    """Return the app that both the worker and the tests use."""
    times = {"soft_time_limit": 3, "time_limit": 10, "visibility_timeout": 12, "soft_shutdown_timeout": 2}
    celery = build_celery(CelerySettings(broker_url=SecretStr(broker_url), **times), TASKS, name="test")
    wire_tasks(celery, TASKS, partial(build_runtime, folder, database_url))
    return celery


def main() -> None:
    app = build_worker(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    sys.exit(run_worker(app, queues=["default", "email"], concurrency=1, max_memory=None, patience=2))

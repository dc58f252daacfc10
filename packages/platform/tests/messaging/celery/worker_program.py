"""A worker with a few small tasks, started by the tests as `worker_program.py BROKER FOLDER`."""

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
from uuid import UUID

from celery import Celery
from pydantic import SecretStr

from tequipy_observability import current_context
from tequipy_platform import Delivery, MessageLog, RetryPolicy, Task
from tequipy_platform.messaging.celery import CelerySettings, TaskRuntime, build_celery, wire_tasks


class InterruptingError(Exception):
    """An error during whose handling the soft time limit's signal arrives."""

    def __repr__(self) -> str:
        os.kill(os.getpid(), signal.SIGUSR1)
        return "InterruptingError()"


class Tasks(MessageLog):
    """Handlers and a message log that append what happens to a file, as lines of JSON."""

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

    async def settle_message(self, message_id: UUID) -> None:
        self.write("settled", id=str(message_id))

    async def retry_message(self, message_id: UUID, wait: timedelta) -> bool:
        """Return whether a test has written the message's id into the file of outbox ids."""
        outbox = self._events.with_name("outbox")
        known = outbox.exists() and str(message_id) in outbox.read_text()
        self.write("retried", id=str(message_id), seconds=wait.total_seconds(), known=known)
        return known

    async def purge_messages(self, *, outbox_age: timedelta, inbox_age: timedelta, batch_size: int) -> None:
        self.write("purged", outbox_age=str(outbox_age), inbox_age=str(inbox_age), batch_size=batch_size)

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

    async def fail(self, delivery: Delivery) -> None:
        self.write("fail", id=str(delivery.id), attempt=delivery.attempt)
        raise RuntimeError("every attempt fails")

    async def refuse(self, delivery: Delivery) -> None:
        self.write("refuse", attempt=delivery.attempt)
        raise LookupError("for good")


LIMIT = timedelta(seconds=10)
QUICK = RetryPolicy(base=timedelta(milliseconds=50), permanent=(LookupError,))
TASKS = (
    Task("test.note", on=("test.noted",)),
    Task("test.note_too", on=("test.noted",), queue="email"),
    Task("test.die_once", time_limit=LIMIT),
    Task("test.hang_once", time_limit=LIMIT),
    Task("test.overrun", time_limit=LIMIT, retry=RetryPolicy(attempts=1)),
    Task("test.overrun_by_default", retry=RetryPolicy(attempts=1)),
    Task("test.fail_once", time_limit=LIMIT, retry=QUICK),
    Task("test.be_interrupted_once", time_limit=LIMIT, retry=QUICK),
    Task("test.refuse", time_limit=LIMIT, retry=QUICK),
    Task("test.fail", time_limit=LIMIT, retry=RetryPolicy(2, lifetime=timedelta(hours=24))),
)


def build_runtime(folder: Path) -> TaskRuntime:
    """Return the handlers; fails if the folder has a file named `broken`."""
    if (folder / "broken").exists():
        raise OSError("the handlers cannot be built")
    tasks = Tasks(folder)
    same = {"note_too": "note", "overrun_by_default": "overrun"}
    names = {task: task.name.removeprefix("test.") for task in TASKS}
    handlers = {task: getattr(tasks, same.get(name, name)) for task, name in names.items()}
    return TaskRuntime(handlers, resources=[tasks.resource()], messages=tasks)


def build_worker(broker_url: str, folder: Path) -> Celery:
    """Return the app that both the worker and the tests use."""
    times = {"soft_time_limit": 3, "time_limit": 10, "visibility_timeout": 12, "soft_shutdown_timeout": 2}
    celery = build_celery(CelerySettings(broker_url=SecretStr(broker_url), **times), TASKS, name="test")
    wire_tasks(celery, TASKS, partial(build_runtime, folder))
    return celery


if __name__ == "__main__":
    app = build_worker(sys.argv[1], Path(sys.argv[2]))
    app.Worker(
        pool_cls="prefork", concurrency=1, queues=["default", "email"], without_mingle=True, without_gossip=True
    ).start()

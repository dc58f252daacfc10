"""A worker or relay with tasks that cause each other, started by the tests as `chain_program.py run|relay FOLDER`."""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path

from celery import Celery

from tequipy_observability import current_context
from tequipy_observability.celery import wire_observability
from tequipy_observability.wiring import ObservabilitySettings, configure_observability
from tequipy_platform import Delivery, Event, RetryPolicy, SystemClock, Task
from tequipy_platform.database import Database, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log, build_unpublished_messages
from tequipy_platform.messaging.celery import TaskRuntime, build_celery, build_relay, wire_tasks
from tequipy_platform.settings import load_settings
from tequipy_worker.settings import WorkerSettings


class Chain:
    """Tasks that record their context; the first one causes others through the outbox."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._notes = folder / "notes"

    async def begin(self, delivery: Delivery) -> None:
        self._note(delivery)
        async with SqlUnitOfWork(self._database, SystemClock(), uuid7) as work:
            work.outbox.add("chain.added")
            work.outbox.publish(Event("chain.begun"))

    async def end(self, delivery: Delivery) -> None:
        self._note(delivery)
        if delivery.attempt == 1:
            raise RuntimeError("the next attempt is part of the chain too")

    async def mend(self, delivery: Delivery) -> None:
        """Fail until the folder has a file named `mended`."""
        self._note(delivery)
        if not (self._notes.parent / "mended").exists():
            raise RuntimeError("not mended yet")

    def _note(self, delivery: Delivery) -> None:
        context = current_context()
        facts = (delivery.task, delivery.attempt, context.correlation_id, context.traceparent)
        with self._notes.open("a") as file:
            file.write(json.dumps(facts) + "\n")


BEGIN = Task("chain.begin")
ADDED = Task("chain.added")
SUBSCRIBED = Task("chain.subscribed", on=("chain.begun",))
MEND = Task("chain.mend", retry=RetryPolicy(attempts=3, base=timedelta(milliseconds=50)))
TASKS = (BEGIN, ADDED, SUBSCRIBED, MEND)


def build(settings: WorkerSettings, folder: Path) -> Celery:
    """Return the app of both processes."""
    observability = configure_observability(ObservabilitySettings(), service="chain", environment="test", version="1")
    celery = build_celery(settings.celery, TASKS, name="chain")
    wire_observability(celery, observability)

    def build_runtime() -> TaskRuntime:
        database = build_database(settings.database)
        chain = Chain(database, folder)
        handlers = {BEGIN: chain.begin, ADDED: chain.end, SUBSCRIBED: chain.end, MEND: chain.mend}
        return TaskRuntime(handlers, build_message_log(database), resources=[observability, database])

    wire_tasks(celery, TASKS, build_runtime)
    return celery


async def relay(settings: WorkerSettings, celery: Celery) -> None:
    """Publish until the process is killed."""
    database = build_database(settings.database)
    messages = build_unpublished_messages(database, redelivery=timedelta(minutes=5))
    async with database, messages, build_relay(celery, messages, TASKS) as running:
        await running.run()


if __name__ == "__main__":
    of_the_environment = load_settings(WorkerSettings)
    app = build(of_the_environment, Path(sys.argv[2]))
    if sys.argv[1] == "relay":
        asyncio.run(relay(of_the_environment, app))
    else:
        app.Worker(
            pool_cls="prefork",
            concurrency=1,
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=True,
            quiet=True,
        ).start()

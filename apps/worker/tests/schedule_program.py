"""A scheduler, relay or worker with scheduled tasks, started as `schedule_program.py beat|relay|run`."""

import asyncio
import sys
from datetime import timedelta

from tequipy_observability.wiring import ObservabilitySettings, configure_observability
from tequipy_platform import Delivery, SystemClock, Task
from tequipy_platform.database import Database, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log, build_scheduler, build_unpublished_messages
from tequipy_platform.messaging.celery import TaskRuntime, build_celery, build_relay, wire_tasks
from tequipy_platform.settings import load_settings
from tequipy_worker.settings import WorkerSettings


class Effects:
    """A handler whose effect is the inbox row of its delivery."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, delivery: Delivery) -> None:
        async with SqlUnitOfWork(self._database, SystemClock(), uuid7) as work:
            await work.inbox.take(delivery)


OFTEN = Task("schedule.often", every=timedelta(seconds=3))
SELDOM = Task("schedule.seldom", every=timedelta(seconds=10))
TASKS = (OFTEN, SELDOM)


async def beat(settings: WorkerSettings) -> None:
    """Add occurrences until the process is killed."""
    async with build_database(settings.database) as database:
        await build_scheduler(database, TASKS).run()


async def relay(settings: WorkerSettings) -> None:
    """Publish until the process is killed."""
    celery = build_celery(settings.celery, TASKS, name="schedule")
    database = build_database(settings.database)
    messages = build_unpublished_messages(database, redelivery=timedelta(minutes=5))
    async with database, messages, build_relay(celery, messages, TASKS) as running:
        await running.run()


def run(settings: WorkerSettings) -> None:
    """Run tasks until the process is killed."""
    celery = build_celery(settings.celery, TASKS, name="schedule")

    def build_runtime() -> TaskRuntime:
        database = build_database(settings.database)
        note = Effects(database).note
        return TaskRuntime({OFTEN: note, SELDOM: note}, build_message_log(database), resources=[database])

    wire_tasks(celery, TASKS, build_runtime)
    celery.Worker(pool_cls="prefork", concurrency=1, without_mingle=True, without_gossip=True, quiet=True).start()


if __name__ == "__main__":
    role, of_the_environment = sys.argv[1], load_settings(WorkerSettings)
    configure_observability(ObservabilitySettings(), service=role, environment="test", version="1")
    if role == "run":
        run(of_the_environment)
    else:
        asyncio.run(beat(of_the_environment) if role == "beat" else relay(of_the_environment))

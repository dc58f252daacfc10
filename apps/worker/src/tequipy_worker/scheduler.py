"""Composition of the scheduler, from the catalogue of tasks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tequipy_observability.wiring import Observability
from tequipy_platform.database import build_database
from tequipy_platform.messaging import Scheduler, build_scheduler
from tequipy_worker.catalogue import TASKS
from tequipy_worker.heartbeat import DATABASE, Heartbeat, loop_heartbeat
from tequipy_worker.settings import WorkerSettings


@asynccontextmanager
async def open_scheduler(
    settings: WorkerSettings, observability: Observability, heartbeat: Heartbeat
) -> AsyncIterator[Scheduler]:
    """Compose the scheduler and open its resources; it needs the database alone."""
    heartbeat.observability = observability
    database = build_database(settings.database, registry=observability.registry, app_version=settings.app_version)
    async with loop_heartbeat(heartbeat, {DATABASE: database.ping}), observability, database:
        yield build_scheduler(database, TASKS)

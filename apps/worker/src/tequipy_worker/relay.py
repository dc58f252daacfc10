"""Composition of the relay, from the catalogue of tasks, and of the Celery app, with which the relay sends messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from celery import Celery

from tequipy_observability.celery import wire_observability
from tequipy_observability.wiring import Observability
from tequipy_platform.database import build_database
from tequipy_platform.messaging import build_unpublished_messages
from tequipy_platform.messaging.celery import Relay, build_celery, build_relay
from tequipy_reporting.wiring import build_gauges
from tequipy_worker.catalogue import QUEUES, TASKS
from tequipy_worker.heartbeat import DATABASE, Heartbeat, broker_check, loop_heartbeat
from tequipy_worker.settings import WorkerSettings


def create_celery(settings: WorkerSettings, observability: Observability) -> Celery:
    """Compose the Celery app, which knows the queues of the tasks, and sends messages."""
    celery = build_celery(settings.celery, TASKS, name=settings.app_name, queues=QUEUES)
    wire_observability(celery, observability)
    return celery


@asynccontextmanager
async def open_relay(
    settings: WorkerSettings, observability: Observability, heartbeat: Heartbeat
) -> AsyncIterator[Relay]:
    """Compose the relay and open its resources; it needs the database and the broker alone."""
    heartbeat.observability = observability
    celery = create_celery(settings, observability)
    database = build_database(settings.database, registry=observability.registry, app_version=settings.app_version)
    messages = build_unpublished_messages(
        database,
        redelivery=timedelta(seconds=settings.celery.visibility_timeout),
        queues={task.name: task.queue for task in TASKS},
        registry=observability.registry,
    )
    reporting = build_gauges(database, registry=observability.registry)
    beating = loop_heartbeat(heartbeat, {DATABASE: database.ping})
    with broker_check(celery, heartbeat):
        async with beating, observability, database, messages, reporting, build_relay(celery, messages, TASKS) as relay:
            yield relay

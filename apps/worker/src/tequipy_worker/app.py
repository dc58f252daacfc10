"""Composition of the worker's processes: scheduler and relay from the catalogue of tasks, the worker with handlers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from celery import Celery

from tequipy_auth import tasks as auth_tasks
from tequipy_auth.wiring import build_auth
from tequipy_caching.wiring import build_cache
from tequipy_observability.celery import wire_observability
from tequipy_observability.wiring import Observability, configure_observability
from tequipy_platform import SystemClock
from tequipy_platform import tasks as platform_tasks
from tequipy_platform.database import build_database, uuid7
from tequipy_platform.http import build_http_clients
from tequipy_platform.mail import build_mail_templates, build_mailer
from tequipy_platform.messaging import (
    Scheduler,
    SqlUnitOfWork,
    build_message_log,
    build_scheduler,
    build_unpublished_messages,
)
from tequipy_platform.messaging.celery import Relay, TaskRuntime, build_celery, build_relay, wire_tasks
from tequipy_platform.settings import variable_of
from tequipy_platform.storage import build_storage
from tequipy_reporting import Reporting
from tequipy_reporting import tasks as reporting_tasks
from tequipy_reporting.wiring import build_gauges, build_reporting, build_writers
from tequipy_worker.catalogue import PERMISSIONS, QUEUES, TASKS
from tequipy_worker.heartbeat import DATABASE, ChildHeartbeat, Heartbeat, broker_check, loop_heartbeat
from tequipy_worker.settings import WorkerSettings


def create_celery(settings: WorkerSettings, observability: Observability) -> Celery:
    """Compose the Celery app, which knows the queues of the tasks, and sends messages."""
    celery = build_celery(settings.celery, TASKS, name=settings.app_name, queues=QUEUES)
    wire_observability(celery, observability)
    return celery


def create_worker(settings: WorkerSettings, observability: Observability | None = None) -> Celery:
    """Compose the worker; its child processes build the handlers after the fork."""
    observability = observability or configure_observability(
        settings.observability,
        service="worker",
        environment=settings.environment,
        version=settings.app_version,
        metrics_port_name=variable_of(WorkerSettings, ("observability", "metrics_port")),
    )
    celery = create_celery(settings, observability)
    wire_tasks(celery, TASKS, partial(build_runtime, settings, observability))
    return celery


def build_runtime(settings: WorkerSettings, observability: Observability) -> TaskRuntime:
    """Compose the handlers of a child process, from the same parts as the API."""
    metrics = observability.registry
    database = build_database(settings.database, registry=metrics, app_version=settings.app_version)
    heartbeat = ChildHeartbeat(settings.worker.state_folder / "run", {DATABASE: database.ping})
    messages = build_message_log(database, redelivery=timedelta(seconds=settings.celery.visibility_timeout))
    unit_of_work = partial(SqlUnitOfWork, database, SystemClock(), uuid7)
    cache = build_cache(settings.cache, registry=metrics)
    storage = build_storage(settings.storage)
    mailer = build_mailer(settings.mail, registry=metrics)
    http = build_http_clients(
        settings.http, app_name=settings.app_name, app_version=settings.app_version, registry=metrics
    )
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        database=database,
        cache=cache,
        http=http,
        mail_templates=build_mail_templates(settings.mail, "tequipy_auth"),
        permissions=PERMISSIONS,
        registry=metrics,
    )
    reporting = build_reporting(
        settings.reporting,
        public_url=settings.public_url,
        database=database,
        auth=auth,
        storage=storage,
        mail_templates=build_mail_templates(settings.mail, "tequipy_reporting"),
        time_limit=timedelta(seconds=settings.celery.soft_time_limit),
        redelivery=timedelta(seconds=settings.celery.visibility_timeout),
        registry=metrics,
    )
    return TaskRuntime(
        handlers={
            **platform_tasks.build_handlers(messages, unit_of_work),
            **auth_tasks.build_handlers(auth, mailer),
            **reporting_tasks.build_handlers(reporting, build_writers(auth, reporting), mailer),
        },
        resources=[heartbeat, observability, database, cache, storage, mailer, http, auth],
        messages=messages,
    )


@asynccontextmanager
async def open_reporting(settings: WorkerSettings) -> AsyncIterator[Reporting]:
    """Compose reporting for a command and open what it needs, which is the database alone."""
    database = build_database(settings.database, app_version=settings.app_version)
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        database=database,
        cache=build_cache(settings.cache),
        http=build_http_clients(settings.http, app_name=settings.app_name, app_version=settings.app_version),
        permissions=PERMISSIONS,
    )
    async with database:
        yield build_reporting(
            settings.reporting,
            public_url=settings.public_url,
            database=database,
            auth=auth,
            storage=build_storage(settings.storage),
        )


@asynccontextmanager
async def open_scheduler(
    settings: WorkerSettings, observability: Observability, heartbeat: Heartbeat
) -> AsyncIterator[Scheduler]:
    """Compose the scheduler and open its resources; it needs the database alone."""
    heartbeat.observability = observability
    database = build_database(settings.database, registry=observability.registry, app_version=settings.app_version)
    async with loop_heartbeat(heartbeat, {DATABASE: database.ping}), observability, database:
        yield build_scheduler(database, TASKS)


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

"""Composition of the handlers of the worker's child processes, and of commands.

The parent process does not import this module; its composition is in `tequipy_worker.worker`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from tequipy_auth import tasks as auth_tasks
from tequipy_auth.wiring import build_auth
from tequipy_caching.wiring import build_cache
from tequipy_observability.wiring import Observability
from tequipy_platform import SystemClock
from tequipy_platform import tasks as platform_tasks
from tequipy_platform.database import build_database, uuid7
from tequipy_platform.http import build_http_clients
from tequipy_platform.mail import build_mail_templates, build_mailer
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log
from tequipy_platform.messaging.celery import TaskRuntime
from tequipy_platform.storage import build_storage
from tequipy_reporting import Reporting
from tequipy_reporting import tasks as reporting_tasks
from tequipy_reporting.wiring import build_reporting, build_writers
from tequipy_worker.catalogue import PERMISSIONS
from tequipy_worker.heartbeat import DATABASE, ChildHeartbeat
from tequipy_worker.settings import WorkerSettings


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
        serves_requests=False,
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
        serves_requests=False,
    )
    async with database:
        yield build_reporting(
            settings.reporting,
            public_url=settings.public_url,
            database=database,
            auth=auth,
            storage=build_storage(settings.storage),
        )

"""Composition of the worker, from the same parts as the API."""

from celery import Celery

from tequipy_auth.tasks import auth_tasks
from tequipy_auth.wiring import build_auth
from tequipy_caching.wiring import build_cache
from tequipy_observability.celery import wire_observability
from tequipy_observability.wiring import Observability, configure_observability
from tequipy_platform.database import build_database
from tequipy_platform.mail import build_mailer
from tequipy_platform.messaging import build_message_log
from tequipy_platform.messaging.celery import build_celery, wire_tasks
from tequipy_platform.storage import build_storage
from tequipy_platform.tasks import platform_tasks
from tequipy_worker.heartbeat import wire_heartbeat
from tequipy_worker.settings import WorkerSettings


def create_worker(settings: WorkerSettings, observability: Observability | None = None) -> Celery:
    """Compose the worker; connections are opened in the forked child processes."""
    observability = observability or configure_observability(
        settings.observability, service="worker", environment=settings.environment, version=settings.app_version
    )
    metrics = observability.registry
    database = build_database(settings.database, registry=metrics)
    messages = build_message_log(database)
    cache = build_cache(settings.cache, registry=metrics)
    storage = build_storage(settings.storage)
    mailer = build_mailer(settings.mail, registry=metrics)
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        database=database,
        cache=cache,
        registry=metrics,
    )
    celery = build_celery(settings.celery, name=settings.app_name)
    wire_observability(celery, observability)
    wire_heartbeat(celery, settings.worker.heartbeat_file)
    wire_tasks(
        celery,
        [*platform_tasks(messages), *auth_tasks(auth, mailer)],
        resources=[observability, database, cache, storage, mailer, auth],
        messages=messages,
    )
    return celery

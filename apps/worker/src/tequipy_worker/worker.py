"""Composition of the worker's parent process, from the catalogue of tasks."""

from functools import partial

from celery import Celery

from tequipy_observability.wiring import Observability, configure_observability
from tequipy_platform.messaging.celery import TaskRuntime, wire_tasks
from tequipy_platform.settings import variable_of
from tequipy_worker.catalogue import TASKS
from tequipy_worker.relay import create_celery
from tequipy_worker.settings import WorkerSettings


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
    wire_tasks(celery, TASKS, partial(_build_runtime, settings, observability))
    return celery


def _build_runtime(settings: WorkerSettings, observability: Observability) -> TaskRuntime:
    """Compose the handlers in a child process, which imports them, so that the parent does not hold them too."""
    from tequipy_worker.app import build_runtime  # noqa: PLC0415 -- as the docstring says

    return build_runtime(settings, observability)

"""Celery support: a broker configuration that loses no message, tasks on an event loop, and the outbox relay.

Needs the extra `celery`.
"""

try:
    import celery  # noqa: F401 -- imported here, so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tequipy_platform.messaging.celery needs Celery: install tequipy-platform[celery]"
    ) from error

from tequipy_platform.messaging.celery.app import build_celery
from tequipy_platform.messaging.celery.child import TaskRuntime
from tequipy_platform.messaging.celery.relay import build_relay
from tequipy_platform.messaging.celery.settings import CelerySettings
from tequipy_platform.messaging.celery.tasks import wire_tasks
from tequipy_platform.messaging.celery.worker import run_worker
from tequipy_platform.messaging.relay import Relay

__all__ = ["CelerySettings", "Relay", "TaskRuntime", "build_celery", "build_relay", "run_worker", "wire_tasks"]

"""Celery support: a broker configuration that loses no message, tasks on an event loop, and the outbox relay.

Needs the extra `celery`. Celery is imported with what uses it, because the scheduler only reads the settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from tequipy_observability import needs_extra

with needs_extra("tequipy-platform[celery]", "billiard", "celery", "kombu", "redis", "vine"):
    from tequipy_platform.messaging.celery.settings import CelerySettings
    from tequipy_platform.messaging.relay import Relay

if TYPE_CHECKING:
    from tequipy_platform.messaging.celery.app import build_celery
    from tequipy_platform.messaging.celery.child import TaskRuntime
    from tequipy_platform.messaging.celery.relay import build_relay
    from tequipy_platform.messaging.celery.tasks import wire_tasks
    from tequipy_platform.messaging.celery.worker import run_worker
else:
    _MODULES: Final = {
        "TaskRuntime": "child",
        "build_celery": "app",
        "build_relay": "relay",
        "run_worker": "worker",
        "wire_tasks": "tasks",
    }

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["CelerySettings", "Relay", "TaskRuntime", "build_celery", "build_relay", "run_worker", "wire_tasks"]

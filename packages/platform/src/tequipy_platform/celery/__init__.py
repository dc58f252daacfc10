"""Celery support: a broker configuration that loses no message, tasks on an event loop, and the outbox relay.

Needs the extra `celery`.
"""

try:
    import celery  # noqa: F401 -- imported here, so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("tequipy_platform.celery needs Celery: install tequipy-platform[celery]") from error

from tequipy_platform.celery.app import QUEUES, BrokerPolicy, build_celery
from tequipy_platform.celery.relay import Relay, build_relay
from tequipy_platform.celery.tasks import wire_tasks

__all__ = ["QUEUES", "BrokerPolicy", "Relay", "build_celery", "build_relay", "wire_tasks"]

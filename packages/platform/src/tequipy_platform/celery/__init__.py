"""The ground's side of a Celery app: the broker set up to lose nothing, tasks on an event loop, the outbox relay.

Needs the extra `celery`.
"""

try:
    import celery  # noqa: F401 -- asked for here, so that the answer names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("tequipy_platform.celery needs Celery: install tequipy-platform[celery]") from error

from tequipy_platform.celery.app import QUEUES, BrokerPolicy, build_celery
from tequipy_platform.celery.relay import Relay, build_relay
from tequipy_platform.celery.tasks import wire_tasks

__all__ = ["QUEUES", "BrokerPolicy", "Relay", "build_celery", "build_relay", "wire_tasks"]

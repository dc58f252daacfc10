"""The door for a Celery app: its processes log as every other of ours. Needs the extra `celery`."""

try:
    from celery import Celery, signals
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tequipy_observability.celery needs Celery: install tequipy-observability[celery]"
    ) from error

from typing import Protocol

from billiard.util import get_logger


class Observability(Protocol):
    """What this needs of the object that `configure_observability` returns."""

    def serve(self) -> None:
        """Open the metrics' own port, if there is to be one."""

    def stop_serving(self) -> None:
        """Close it."""


def wire_observability(celery: Celery, observability: Observability) -> None:
    """Keep Celery from setting up logging of its own: what `configure_observability` set up stays, in children too.

    The metrics' own port, if there is one, is open while the worker's main process runs tasks.
    """
    celery.conf.worker_hijack_root_logger = False
    celery.conf.worker_redirect_stdouts = False
    # Celery leaves logging alone when this signal has a receiver.
    signals.setup_logging.connect(_leave_logging_alone, weak=False, dispatch_uid="tequipy_observability")
    # Once the children have been forked: none of them inherits the port.
    signals.worker_ready.connect(lambda **_: observability.serve(), weak=False)
    signals.worker_shutdown.connect(lambda **_: observability.stop_serving(), weak=False)


def _leave_logging_alone(**_: object) -> None:
    """Set up nothing, and let the pool's own logger in: it would tell of a child's death past every handler."""
    get_logger().propagate = True

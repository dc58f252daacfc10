"""Attaches observability to a Celery app: worker, scheduler or whoever publishes."""

from typing import Protocol

from billiard.util import get_logger
from celery import Celery, signals
from celery.beat import Service
from prometheus_client import CollectorRegistry, Gauge

from tequipy_observability.celery.metrics import ENQUEUED_HEADER, TaskMetrics, enqueued_at
from tequipy_observability.domain.context import current_context

CORRELATION_HEADER = "tequipy_correlation_id"
"""A message header of our own: Celery overwrites the plain name with its message's id."""
TRACE_HEADER = "traceparent"


class Observability(Protocol):
    """What this needs of the object that `configure_observability` returns."""

    @property
    def registry(self) -> CollectorRegistry:
        """Where metrics are registered."""

    def serve(self) -> None:
        """Open the metrics' own port, if there is to be one."""

    def stop_serving(self) -> None:
        """Close it."""


def wire_observability(celery: Celery, observability: Observability) -> None:
    """Make a Celery app observable: its logging is ours, its tasks are counted, its messages say whence they come.

    Whatever a task sends carries the correlation id and the trace of that task. The metrics' own port, if there is one,
    is open while a worker's main process runs tasks, and while a scheduler ticks; a process that cannot have it ends.
    """
    celery.conf.worker_hijack_root_logger = False
    celery.conf.worker_redirect_stdouts = False
    # Celery leaves logging alone when this signal has a receiver.
    signals.setup_logging.connect(_leave_logging_alone, weak=False, dispatch_uid="tequipy_observability")
    signals.before_task_publish.connect(_hand_on, weak=False, dispatch_uid="tequipy_observability")
    TaskMetrics(celery, observability.registry).connect()
    # Once the children have been forked: none of them inherits the port.
    signals.worker_ready.connect(lambda **_: _serve(observability), weak=False)
    signals.worker_shutdown.connect(lambda **_: observability.stop_serving(), weak=False)
    signals.beat_init.connect(lambda sender, **_: _watch(sender, observability), weak=False)


def _leave_logging_alone(**_: object) -> None:
    """Set up nothing, and let the pool's own logger in: it would tell of a child's death past every handler."""
    get_logger().propagate = True


def _hand_on(headers: dict[str, object], **_: object) -> None:
    """Tell the receiver of a message whose work it goes on with; what the sender has said himself stands."""
    context = current_context()
    facts = {CORRELATION_HEADER: context.correlation_id, TRACE_HEADER: context.traceparent}
    headers |= {name: value for name, value in facts.items() if value is not None and headers.get(name) is None}
    headers[ENQUEUED_HEADER] = enqueued_at(headers)


def _serve(observability: Observability) -> None:
    try:
        observability.serve()
    except OSError as error:
        # Not an error: Celery would log that and go on, and nobody would see that nothing is seen.
        raise SystemExit(str(error)) from error


def _watch(service: Service, observability: Observability) -> None:
    """Say when the scheduler last looked at its schedule: one that hangs stops to say so."""
    ticked = Gauge(
        "scheduler_last_tick_timestamp", "Unix time of the scheduler's last tick.", registry=observability.registry
    )
    tick = service.scheduler.tick

    def tick_and_tell() -> float:
        interval: float = tick()
        ticked.set_to_current_time()
        return interval

    service.scheduler.tick = tick_and_tell  # type: ignore[method-assign,assignment]  # -- whichever scheduler it is
    _serve(observability)

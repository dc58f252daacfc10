"""Attaches observability to a Celery app, in workers and publishers."""

from billiard.util import get_logger
from celery import Celery, signals

from tequipy_observability._context import MESSAGE_CORRELATION_HEADER, TRACE_HEADER, current_context
from tequipy_observability.celery.metrics import ENQUEUED_HEADER, TaskMetrics, enqueued_at
from tequipy_observability.wiring import Observability


def wire_observability(celery: Celery, observability: Observability) -> None:
    """Attach logging, metrics and request context to a Celery app.

    Messages that a task publishes carry the task's correlation id and trace. The metrics' own port, if configured, is
    open while a worker's main process runs; the process ends if the port is not available.
    """
    celery.conf.worker_hijack_root_logger = False
    celery.conf.worker_redirect_stdouts = False
    # Celery does not configure logging if this signal has a receiver.
    signals.setup_logging.connect(_leave_logging_alone, weak=False, dispatch_uid="tequipy_observability")
    signals.before_task_publish.connect(_add_headers, weak=False, dispatch_uid="tequipy_observability")
    TaskMetrics(celery, observability.registry).connect()
    # `worker_ready` comes after the children have been forked, so none of them inherits the port.
    signals.worker_ready.connect(lambda **_: _serve(observability), weak=False)
    signals.worker_shutdown.connect(lambda **_: observability.stop_serving(), weak=False)


def _leave_logging_alone(**_: object) -> None:
    """Configure nothing, except that billiard's logger propagates; it would bypass all handlers otherwise."""
    get_logger().propagate = True


def _add_headers(headers: dict[str, object], **_: object) -> None:
    """Add correlation id, trace and publication time to a message; headers that the sender has set are kept."""
    context = current_context()
    defaults = {MESSAGE_CORRELATION_HEADER: context.correlation_id, TRACE_HEADER: context.traceparent}
    headers |= {name: value for name, value in defaults.items() if value is not None and headers.get(name) is None}
    headers[ENQUEUED_HEADER] = enqueued_at(headers)


def _serve(observability: Observability) -> None:
    try:
        observability.serve()
    except OSError as error:
        # Celery would log any other exception and continue without metrics.
        raise SystemExit(str(error)) from error

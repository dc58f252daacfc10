"""Registers tasks in a worker: context, delivery and retries."""

import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from celery import Celery, signals
from celery import Task as CeleryTask
from celery.app.task import Context
from celery.exceptions import Retry

from tequipy_observability import (
    MESSAGE_CORRELATION_HEADER,
    TRACE_HEADER,
    RequestContext,
    accept_correlation_id,
    request_context,
)
from tequipy_platform._events import JSON
from tequipy_platform._tasks import Delivery, Task
from tequipy_platform.messaging.celery.child import ChildLoop, TaskRuntime
from tequipy_platform.messaging.celery.headers import ATTEMPTS_HEADER, FAILING_HEADER

R = TypeVar("R")

logger = logging.getLogger(__name__)


def wire_tasks(celery: Celery, tasks: Sequence[Task], build: Callable[[], TaskRuntime]) -> None:
    """Register the tasks in a worker; each child process calls `build` once and runs them on its own event loop.

    `celery` must be built from the same tasks. The outcome of each message is recorded in the runtime's message log, so
    that the relay publishes failed messages again when their next attempt is due, and messages that the broker has
    lost. Messages that are not from the outbox (those of the scheduler) are retried in the broker.
    """
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_DROP_TASK_LOGS)
    child = ChildLoop(tasks, build)
    log = _OutcomeLog(child)
    signals.worker_process_init.connect(_ignoring_arguments(child.start), weak=False)
    signals.worker_process_shutdown.connect(_ignoring_arguments(child.stop), weak=False)
    soft_share: float = celery.conf.task_soft_time_limit / celery.conf.task_time_limit
    for task in tasks:
        limit: Any = None  # Celery then takes the worker's own; its stubs do not know that
        soft_limit: Any = None
        if task.time_limit is not None:
            limit = int(task.time_limit.total_seconds())
            soft_limit = int(limit * soft_share)
        celery.task(
            name=task.name,
            bind=True,
            shared=False,
            time_limit=limit,
            soft_time_limit=soft_limit,
            max_retries=task.retry.attempts - 1,
            # For messages whose process was killed. Celery's default of 3 minutes exceeds a short visibility timeout.
            default_retry_delay=1,
        )(_body(task, child, log))


def _body(task: Task, child: ChildLoop, log: "_OutcomeLog") -> Callable[..., None]:
    def run(self: CeleryTask[Any, Any], *arguments: JSON, **payload: JSON) -> None:
        request = self.request
        context = RequestContext(
            # A scheduled message has no id at first; the one created here is passed on to the next attempts.
            correlation_id=accept_correlation_id(request.get(MESSAGE_CORRELATION_HEADER)),
            traceparent=request.get(TRACE_HEADER),
            task_id=request.id,
            task_name=task.name,
        )

        def work() -> None:
            delivery = Delivery(UUID(request.id), task.name, attempt=_failed_attempts(request) + 1)
            child.run_task(child.runtime.handlers[task](delivery, *arguments, **payload))

        with request_context(context):
            _attempt(self, task, context, work, log)

    return run


def _attempt(
    celery_task: CeleryTask[Any, Any], task: Task, context: RequestContext, work: Callable[[], None], log: "_OutcomeLog"
) -> None:
    """Make one attempt, log its outcome once, and arrange the next attempt after a failure."""
    started, attempt = time.perf_counter(), _failed_attempts(celery_task.request) + 1

    def log_fields() -> dict[str, object]:
        return {"attempt": attempt, "duration_ms": round((time.perf_counter() - started) * 1000, 3)}

    try:
        work()
    except Exception as error:
        if task.retry.is_final_failure(attempt, error, failing_for=_failing_for(celery_task.request)):
            logger.exception("task_failed", extra=log_fields())
            log.settle(celery_task.request.id)
            raise
        # Full jitter, so that tasks which failed together are not retried together.
        wait = random.uniform(0, task.retry.max_wait(attempt).total_seconds())  # noqa: S311 -- no secret
        logger.warning("task_retried", extra=log_fields() | {"error": repr(error), "retry_in_seconds": round(wait, 3)})
        if log.retry(celery_task.request.id, wait):
            raise Retry(exc=error) from error  # ends this message; the relay publishes the next one
        raise _retry_in_broker(celery_task, context, error, wait) from error
    logger.info("task_succeeded", extra=log_fields())
    log.settle(celery_task.request.id)


def _retry_in_broker(
    celery_task: CeleryTask[Any, Any], context: RequestContext, error: Exception, wait: float
) -> Exception:
    """Return the exception that puts the message back into the broker with a countdown below the visibility timeout.

    For messages that are not from the outbox, and while the database is unreachable.
    """
    request = celery_task.request
    headers = {
        MESSAGE_CORRELATION_HEADER: context.correlation_id,
        TRACE_HEADER: context.traceparent,
        ATTEMPTS_HEADER: request.get(ATTEMPTS_HEADER),
        FAILING_HEADER: request.get(FAILING_HEADER),
    }
    longest: float = celery_task.app.conf.broker_transport_options["visibility_timeout"] / 2
    return celery_task.retry(
        exc=error,
        countdown=min(wait, longest),
        headers={name: value for name, value in headers.items() if value is not None},
        max_retries=request.retries + 1,  # the retry policy decides about the number of attempts
        throw=False,
    )


def _failed_attempts(request: Context) -> int:
    """Return the number of failed attempts: those in the outbox's row and those that the broker has counted since."""
    before = request.get(ATTEMPTS_HEADER)
    return request.retries + (before if isinstance(before, int) else 0)


def _failing_for(request: Context) -> timedelta | None:
    """Return the time since the first failure of a message of the outbox, or None for other messages."""
    if request.get(ATTEMPTS_HEADER) is None:
        return None
    since = request.get(FAILING_HEADER)
    return timedelta(seconds=max(0.0, time.time() - since) if isinstance(since, int | float) else 0)


class _OutcomeLog:
    """Records outcomes in the message log; if that fails, the message is delivered again."""

    def __init__(self, child: ChildLoop) -> None:
        self._child = child

    def settle(self, task_id: str | None) -> None:
        messages = self._child.runtime.messages
        if messages is not None and task_id is not None:
            self._record(messages.settle_message(UUID(task_id)))

    def retry(self, task_id: str | None, seconds: float) -> bool:
        """Record a failed attempt; return whether the relay will publish the message again."""
        messages = self._child.runtime.messages
        if messages is None or task_id is None:
            return False
        return self._record(messages.retry_message(UUID(task_id), timedelta(seconds=seconds))) is True

    def _record(self, recording: Coroutine[Any, Any, R]) -> R | None:
        try:
            return self._child.run(recording)
        except Exception as error:  # noqa: BLE001 -- any outage: the message is delivered again, and tasks are idempotent
            logger.warning("task_outcome_lost", extra={"error": f"{type(error).__name__}: {error}"})
            return None


class _DropTaskLogs(logging.Filter):
    """Drops Celery's own log records about tasks: `_attempt` logs each outcome once, with its context."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not hasattr(record, "data")


_DROP_TASK_LOGS = _DropTaskLogs()


def _ignoring_arguments(receiver: Callable[[], None]) -> Callable[..., None]:
    return lambda **_: receiver()

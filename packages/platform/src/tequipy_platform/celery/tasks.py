"""Tasks of this house as tasks of Celery: context, delivery, retries, schedule."""

import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from celery import Celery, signals
from celery import Task as CeleryTask
from celery.app.task import Context
from celery.exceptions import Retry
from celery.schedules import crontab

from tequipy_observability import RequestContext, accept_correlation_id, request_context
from tequipy_platform.celery.child import ChildLoop
from tequipy_platform.domain.events import JSON
from tequipy_platform.domain.outbox import MessageLog
from tequipy_platform.domain.tasks import Crontab, Delivery, Task

CORRELATION_HEADER = "tequipy_correlation_id"
"""A message header of our own: Celery overwrites the plain name with its message's id."""
TRACE_HEADER = "traceparent"
ATTEMPTS_HEADER = "tequipy_failed_attempts"
"""How many attempts at a message of the outbox have failed; absent from messages that came by another way."""
FAILING_HEADER = "tequipy_failing_since"
"""When the first of them failed, as Unix time."""
LEAST_TIME_LIMIT = 10.0
"""Seconds; below it the limit would end a task before the death of its process is noticed (see `worker_lost_wait`)."""

R = TypeVar("R")

logger = logging.getLogger("tequipy.task")


def wire_tasks(
    celery: Celery,
    tasks: Sequence[Task],
    *,
    resources: Sequence[AbstractAsyncContextManager[object]],
    messages: MessageLog | None = None,
) -> None:
    """Register the tasks, their schedules, and the event loop that they run on in each child process.

    The outcome of each message goes to `messages`, so that the relay publishes again what failed, when its next attempt
    is due, and what the broker has lost. A message that is none of the outbox (the scheduler's) waits in the broker.

    Raises `ValueError` for a task whose time limit does not fit the broker's visibility timeout: its message would be
    delivered a second time while the first is still at work; and for a time limit under 10 s: the message of a killed
    child would be taken for that of a slow one, and lost.
    """
    for task in tasks:
        _check_times(task, visibility_timeout=celery.conf.broker_transport_options["visibility_timeout"])
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_SAID_ALREADY)
    child = ChildLoop(resources)
    log = _Log(messages, child)
    signals.worker_process_init.connect(_ignoring_arguments(child.start), weak=False)
    signals.worker_process_shutdown.connect(_ignoring_arguments(child.stop), weak=False)
    soft_share: float = celery.conf.task_soft_time_limit / celery.conf.task_time_limit
    for task in tasks:
        seconds = int(task.time_limit.total_seconds())
        celery.task(
            name=task.name,
            bind=True,
            shared=False,
            on=task.on,  # read by the relay, for whom the app is the list of all tasks
            time_limit=seconds,
            soft_time_limit=int(seconds * soft_share),
            max_retries=task.retry.attempts - 1,
            # When its process was killed. Celery's own 3 minutes are beyond a short visibility timeout.
            default_retry_delay=1,
        )(_body(task, child, log))
    celery.conf.task_routes = {task.name: {"queue": task.queue} for task in tasks}
    celery.conf.beat_schedule = {
        task.name: {"task": task.name, "schedule": _schedule(task.every)} for task in tasks if task.every is not None
    }


def _check_times(task: Task, *, visibility_timeout: float) -> None:
    limit = task.time_limit.total_seconds()
    if limit < LEAST_TIME_LIMIT:
        raise ValueError(f"task {task.name}: its time limit of {limit:g} s must be at least {LEAST_TIME_LIMIT:g} s")
    if limit >= visibility_timeout:
        raise ValueError(
            f"task {task.name}: its time limit of {limit:g} s must be below the visibility timeout of "
            f"{visibility_timeout:g} s (TEQUIPY_CELERY__VISIBILITY_TIMEOUT)"
        )


def _body(task: Task, child: ChildLoop, log: "_Log") -> Callable[..., None]:
    def run(self: CeleryTask[Any, Any], *arguments: JSON, **payload: JSON) -> None:
        request = self.request
        context = RequestContext(
            # A scheduled message has none yet: what this attempt makes is handed on to the next.
            correlation_id=accept_correlation_id(request.get(CORRELATION_HEADER)),
            traceparent=request.get(TRACE_HEADER),
            task_id=request.id,
            task_name=task.name,
        )

        def work() -> None:
            delivery = Delivery(UUID(request.id), task.name, attempt=_failed_attempts(request) + 1)
            child.run_task(task.handler(delivery, *arguments, **payload))

        with request_context(context):
            _attempt(self, task, context, work, log)

    return run


def _attempt(
    celery_task: CeleryTask[Any, Any], task: Task, context: RequestContext, work: Callable[[], None], log: "_Log"
) -> None:
    """Make one attempt, and arrange for the next one when it fails; one log line says how it ended."""
    started, attempt = time.perf_counter(), _failed_attempts(celery_task.request) + 1

    def facts() -> dict[str, object]:
        return {"attempt": attempt, "duration_ms": round((time.perf_counter() - started) * 1000, 3)}

    try:
        work()
    except Exception as error:
        if task.retry.gives_up(attempt, error, failing_for=_failing_for(celery_task.request)):
            logger.exception("task_failed", extra=facts())
            log.settle(celery_task.request.id)
            raise
        # Full jitter: tasks that failed together do not come back together.
        wait = random.uniform(0, task.retry.longest_wait(attempt).total_seconds())  # noqa: S311 -- no secret
        logger.warning("task_retried", extra=facts() | {"error": repr(error), "retry_in_seconds": round(wait, 3)})
        if log.retry(celery_task.request.id, wait):
            raise Retry(exc=error) from error  # ends this message: the relay publishes the next one
        raise _retry_in_broker(celery_task, context, error, wait) from error
    logger.info("task_succeeded", extra=facts())
    log.settle(celery_task.request.id)


def _retry_in_broker(
    celery_task: CeleryTask[Any, Any], context: RequestContext, error: Exception, wait: float
) -> Exception:
    """Put the message back into the broker with a countdown, within which it is not taken for lost; return the error.

    For messages that are none of the outbox, and while the database is away.
    """
    request = celery_task.request
    facts = {
        CORRELATION_HEADER: context.correlation_id,
        TRACE_HEADER: context.traceparent,
        ATTEMPTS_HEADER: request.get(ATTEMPTS_HEADER),
        FAILING_HEADER: request.get(FAILING_HEADER),
    }
    longest: float = celery_task.app.conf.broker_transport_options["visibility_timeout"] / 2
    return celery_task.retry(
        exc=error,
        countdown=min(wait, longest),
        headers={name: value for name, value in facts.items() if value is not None},
        max_retries=request.retries + 1,  # whether there is another attempt is for the policy to say
        throw=False,
    )


def _failed_attempts(request: Context) -> int:
    """Return how many attempts have failed: those in the outbox's row, and those that the broker has counted since."""
    before = request.get(ATTEMPTS_HEADER)
    return request.retries + (before if isinstance(before, int) else 0)


def _failing_for(request: Context) -> timedelta | None:
    """Return the time since the first failure of a message of the outbox, 0 at the first; None for other messages."""
    if request.get(ATTEMPTS_HEADER) is None:
        return None
    since = request.get(FAILING_HEADER)
    return timedelta(seconds=max(0.0, time.time() - since) if isinstance(since, int | float) else 0)


class _Log:
    """Tells the message log what became of a message. What cannot be told is no fault of the task: it is done again."""

    def __init__(self, messages: MessageLog | None, child: ChildLoop) -> None:
        self._messages = messages
        self._child = child

    def settle(self, task_id: str | None) -> None:
        if self._messages is not None and task_id is not None:
            self._tell(self._messages.settle_message(UUID(task_id)))

    def retry(self, task_id: str | None, seconds: float) -> bool:
        """Return whether the message will be published again by the relay."""
        if self._messages is None or task_id is None:
            return False
        return self._tell(self._messages.retry_message(UUID(task_id), timedelta(seconds=seconds))) is True

    def _tell(self, telling: Coroutine[Any, Any, R]) -> R | None:
        try:
            return self._child.run(telling)
        except Exception as error:  # noqa: BLE001 -- whatever is away: the message is published again, and is idempotent
            logger.warning("task_outcome_untold", extra={"error": f"{type(error).__name__}: {error}"})
            return None


class _SaidAlready(logging.Filter):
    """Drops what Celery tells of each task's course: `_attempt` says it once, and with its context."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not hasattr(record, "data")


_SAID_ALREADY = _SaidAlready()


def _schedule(every: timedelta | Crontab) -> timedelta | crontab:
    if isinstance(every, timedelta):
        return every
    return crontab(
        minute=every.minute,
        hour=every.hour,
        day_of_month=every.day_of_month,
        month_of_year=every.month_of_year,
        day_of_week=every.day_of_week,
    )


def _ignoring_arguments(receiver: Callable[[], None]) -> Callable[..., None]:
    return lambda **_: receiver()

"""Registers tasks in a worker, as Celery sees them: the broker's message is an id, and the outcome an exception."""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from celery import Celery, signals
from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject, Retry

from tequipy_platform._tasks import Task
from tequipy_platform.messaging.celery.child import ChildLoop, TaskRuntime
from tequipy_platform.messaging.celery.logs import drop_repeated_records
from tequipy_platform.messaging.deliveries import Deliveries, Outcome
from tequipy_platform.messaging.message_log import FOREIGN_TASK

UNKNOWN_TASK: Final = "tequipy.unknown"
"""The Celery task that receives messages for tasks which this release does not know."""


class TaskFailed(Exception):
    """A message became a dead letter. It carries text alone, so that Celery can pass it between processes."""


def wire_tasks(celery: Celery, tasks: Sequence[Task], build: Callable[[], TaskRuntime]) -> None:
    """Register the tasks in a worker; each child process calls `build` once and runs them on its own event loop.

    `celery` must be built from the same tasks. A message of the broker holds the id of an outbox row; payload, attempts
    and outcome are in the row, so a failed message is published again by the relay when its next attempt is due.
    """
    drop_repeated_records(TaskFailed)
    child = ChildLoop(tasks, build)
    signals.worker_process_init.connect(_ignoring_arguments(child.start), weak=False)
    signals.worker_process_shutdown.connect(_ignoring_arguments(child.stop), weak=False)
    soft_share: float = celery.conf.task_soft_time_limit / celery.conf.task_time_limit
    for task in tasks:
        limit: Any = None  # Celery then takes the worker's own; its stubs do not know that
        soft_limit: Any = None
        if task.time_limit is not None:
            limit = int(task.time_limit.total_seconds())
            soft_limit = int(limit * soft_share)
        celery.task(name=task.name, bind=True, shared=False, time_limit=limit, soft_time_limit=soft_limit)(_body(child))
    celery.task(name=UNKNOWN_TASK, bind=True, shared=False)(_body(child))
    celery.task(name=FOREIGN_TASK, bind=True, shared=False)(_foreign_body(child))


def _body(child: ChildLoop) -> Callable[..., None]:
    def run(self: CeleryTask[Any, Any], *_: object, **__: object) -> None:
        message_id, queue = UUID(self.request.id), _queue_of(self)  # the consumer lets no other id through
        redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
        _end(child.deliver(lambda deliveries: deliveries.handle(message_id, queue=queue, redelivered=redelivered)))

    return run


def _foreign_body(child: ChildLoop) -> Callable[..., None]:
    def run(self: CeleryTask[Any, Any], text: str = "") -> None:
        def work(deliveries: Deliveries) -> Any:  # noqa: ANN401 -- a coroutine
            return deliveries.handle_foreign(str(text), queue=_queue_of(self))

        _end(child.deliver(work))

    return run


def _queue_of(celery_task: CeleryTask[Any, Any]) -> str | None:
    name = (celery_task.request.delivery_info or {}).get("routing_key")
    return name if isinstance(name, str) else None


def _end(outcome: Outcome) -> None:
    """Raise the exception by which Celery ends the broker's message, and counts its outcome."""
    if outcome is Outcome.RETURNED:
        raise Reject("the message returns to its queue", requeue=True)
    if outcome is Outcome.RETRIED:
        raise Retry("the outbox sends the message again")
    if outcome is Outcome.IGNORED:
        raise Ignore
    if outcome is Outcome.FAILED:
        raise TaskFailed("the message is a dead letter")


def _ignoring_arguments(receiver: Callable[[], None]) -> Callable[..., None]:
    return lambda **_: receiver()

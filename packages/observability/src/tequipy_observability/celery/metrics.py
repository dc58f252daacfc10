"""Metrics of tasks from Celery's signals; the label values are limited to known tasks and queues."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from billiard.einfo import ExceptionInfo
from celery import Celery, signals, states
from celery import Task as CeleryTask
from celery.app.task import Context
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from kombu.message import Message
from prometheus_client import CollectorRegistry, Counter, Histogram

UNKNOWN: Final = "__unknown__"
"""The label of a message for an unknown task or from an unknown queue."""
ENQUEUED_HEADER: Final = "tequipy_enqueued_at"
"""The Unix time from which a worker could take the message; set when it is published."""
_DURATION_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_WAIT_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_OUTCOMES: Final[Mapping[str | None, str]] = {
    states.SUCCESS: "succeeded",
    states.FAILURE: "failed",
    states.RETRY: "retried",
    states.REJECTED: "rejected",
    states.IGNORED: "ignored",
}


class TaskMetrics:
    """Measures attempts: their number, outcome and duration, and the waiting time of their messages."""

    def __init__(self, celery: Celery, registry: CollectorRegistry) -> None:
        self._celery = celery
        self._attempts = Counter("task_total", "Attempts that ended.", ["task", "queue", "outcome"], registry=registry)
        self._duration = Histogram(
            "task_duration_seconds", "Seconds of an attempt.", ["task"], buckets=_DURATION_BUCKETS, registry=registry
        )
        self._wait = Histogram(
            "task_wait_seconds",
            "Seconds from the moment a message could be taken to the start of its attempt.",
            ["task", "queue"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            "task_retries_total", "Failed attempts that are followed by another.", ["task"], registry=registry
        )
        self._started: dict[str, float] = {}

    def connect(self) -> None:
        """Subscribe to the signals of this process and of the children that it will fork."""
        for signal, receiver in (
            (signals.task_prerun, self._on_start),
            (signals.task_postrun, self._on_end),
            (signals.task_retry, self._on_retry),
            (signals.task_failure, self._on_failure),
            (signals.task_unknown, self._on_refusal),
            (signals.task_rejected, self._on_refusal),
            (signals.worker_init, self._watch_for_deaths),
        ):
            signal.connect(receiver, weak=False)

    def _on_start(self, task_id: str, task: CeleryTask[Any, Any], **_: object) -> None:
        self._started[task_id] = time.perf_counter()
        enqueued = task.request.get(ENQUEUED_HEADER)
        if isinstance(enqueued, int | float):
            waited = max(0.0, time.time() - enqueued)
            self._wait.labels(task.name, self._queue_of(task.request.delivery_info)).observe(waited)

    def _on_end(self, task_id: str, task: CeleryTask[Any, Any], state: str | None = None, **_: object) -> None:
        if (started := self._started.pop(task_id, None)) is not None:
            self._duration.labels(task.name).observe(time.perf_counter() - started)
        self._count(task, task.request, _OUTCOMES.get(state, "failed"))

    def _on_retry(self, sender: CeleryTask[Any, Any], **_: object) -> None:
        self._retries.labels(sender.name).inc()

    def _on_failure(self, sender: CeleryTask[Any, Any], exception: BaseException, **_: object) -> None:
        if isinstance(exception, TimeLimitExceeded):  # reported by the parent as well
            self._count(sender, sender.request, "timed_out")

    def _watch_for_deaths(self, **_: object) -> None:
        """Count attempts of killed children, for which Celery has no signal if the message returns to its queue."""
        from celery.worker.request import Request  # noqa: PLC0415 -- the worker's parent alone needs it

        count = self._count

        class CountingRequest(Request):
            """A message as the worker's parent process sees it."""

            def on_failure(self, exc_info: ExceptionInfo, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- as Celery's
                # billiard wraps an error that has a traceback.
                if isinstance(getattr(exc_info.exception, "exc", exc_info.exception), WorkerLostError):
                    count(self.task, self._context, "lost")  # type: ignore[attr-defined]  # -- the stubs lack it
                return super().on_failure(exc_info, *args, **kwargs)

        self._celery.Task.Request = CountingRequest  # type: ignore[assignment]  # -- a class is accepted too

    def _on_refusal(self, message: Message, **_: object) -> None:
        self._attempts.labels(UNKNOWN, self._queue_of(message.delivery_info), "refused").inc()

    def _count(self, task: CeleryTask[Any, Any], request: Context, outcome: str) -> None:
        self._attempts.labels(task.name, self._queue_of(request.delivery_info), outcome).inc()

    def _queue_of(self, delivery: Mapping[str, object] | None) -> str:
        name = (delivery or {}).get("routing_key")
        return name if isinstance(name, str) and name in self._celery.amqp.queues else UNKNOWN


def enqueued_at(headers: Mapping[str, object]) -> float:
    """Return the Unix time from which a message with these headers, published now, can be taken."""
    eta = headers.get("eta")
    return max(time.time(), datetime.fromisoformat(eta).timestamp()) if isinstance(eta, str) else time.time()

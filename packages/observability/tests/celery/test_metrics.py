"""Metrics of tasks from simulated signals; the tests of apps/worker use real processes."""

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pytest
from celery import Celery, signals, states
from celery.app.task import Context
from celery.exceptions import Retry, TimeLimitExceeded
from celery.utils.dispatch import Signal
from kombu import Queue
from prometheus_client import CollectorRegistry

from tequipy_observability.celery.metrics import ENQUEUED_HEADER, TaskMetrics


def note() -> None:
    """Do nothing."""


class Attempts:
    """Sends the signals that Celery sends for a task's attempts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.celery = Celery("test", set_as_current=False)
        self.celery.conf.task_queues = [Queue("email")]
        self.task = self.celery.task(name="test.note", shared=False)(note)
        TaskMetrics(self.celery, self.registry).connect()

    def run(self, state: str, *, queue: str = "email", headers: Mapping[str, object] = MappingProxyType({})) -> None:
        request = Context(id="1", delivery_info={"routing_key": queue}, **headers)
        self.task.request_stack.push(request)
        signals.task_prerun.send(sender=self.task, task_id="1", task=self.task, args=(), kwargs={})
        signals.task_postrun.send(sender=self.task, task_id="1", task=self.task, state=state)
        self.task.request_stack.pop()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def count(self, outcome: str, *, task: str = "test.note", queue: str = "email") -> float | None:
        return self.value("task_total", task=task, queue=queue, outcome=outcome)


@pytest.fixture
def attempts() -> Iterator[Attempts]:
    used = [signal for signal in vars(signals).values() if isinstance(signal, Signal)]
    before = [list(signal.receivers) for signal in used]
    yield Attempts()
    for signal, receivers in zip(used, before, strict=True):
        signal.receivers[:] = receivers


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (states.SUCCESS, "succeeded"),
        (states.FAILURE, "failed"),
        (states.RETRY, "retried"),
        (states.REJECTED, "rejected"),
        (states.IGNORED, "ignored"),
    ],
)
def test_an_attempt_counts_by_how_it_ended(attempts: Attempts, state: str, outcome: str) -> None:
    """Each end of an attempt is counted as an outcome of its task, and its duration is recorded."""
    attempts.run(state)
    assert attempts.count(outcome) == 1
    assert attempts.value("task_duration_seconds_count", task="test.note") == 1


def test_a_message_is_known_to_have_waited(attempts: Attempts) -> None:
    """The waiting time is measured from the time in the message's header and never negative; without one it is not."""
    attempts.run(states.SUCCESS, headers={ENQUEUED_HEADER: time.time() - 20})
    attempts.run(states.SUCCESS, headers={ENQUEUED_HEADER: time.time() + 20})
    attempts.run(states.SUCCESS, headers={ENQUEUED_HEADER: "forged"})
    attempts.run(states.SUCCESS)
    labels = {"task": "test.note", "queue": "email"}
    assert attempts.value("task_wait_seconds_count", **labels) == 2
    assert attempts.value("task_wait_seconds_sum", **labels) == pytest.approx(20, abs=15)


def test_a_queue_that_is_not_ours_has_no_name(attempts: Attempts) -> None:
    """A message from an unknown queue is counted under `__unknown__`."""
    attempts.run(states.SUCCESS, queue="forged")
    assert attempts.count("succeeded", queue="__unknown__") == 1


def test_the_parent_reports_timeouts(attempts: Attempts) -> None:
    """The parent counts an attempt over its hard limit as `timed_out`; what the child reports itself counts once."""
    attempts.task.request_stack.push(Context(id="1", delivery_info={"routing_key": "email"}))
    for error in (TimeLimitExceeded(10), ValueError("reported by the child itself")):
        signals.task_failure.send(sender=attempts.task, task_id="1", exception=error, einfo=None)
    attempts.task.request_stack.pop()
    assert (attempts.count("timed_out"), attempts.count("failed")) == (1, None)


def test_a_retry_counts_as_one(attempts: Attempts) -> None:
    """An attempt that is followed by another is counted as a retry."""
    signals.task_retry.send(sender=attempts.task, request=Context(), reason=Retry(exc=ValueError()), einfo=None)
    assert attempts.value("task_retries_total", task="test.note") == 1

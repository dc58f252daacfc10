"""Observability of a worker: logging is not changed by Celery, and the main process serves the metrics."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from billiard.util import get_logger
from celery import Celery, signals
from celery.utils.dispatch import Signal
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from tequipy_observability import RequestContext, request_context
from tequipy_observability.celery import wire_observability
from tequipy_observability.wiring import Observability, ObservabilitySettings


@pytest.fixture(autouse=True)
def _restored_signals() -> Iterator[None]:
    """Disconnect the signal receivers that a test has connected."""
    used = [signal for signal in vars(signals).values() if isinstance(signal, Signal)]
    before = [list(signal.receivers) for signal in used]
    yield
    for signal, receivers in zip(used, before, strict=True):
        signal.receivers[:] = receivers


@pytest.fixture
def observability(free_port: Callable[[], int]) -> Observability:
    registry = CollectorRegistry()
    Counter("things", "Things counted.", registry=registry).inc()
    settings = ObservabilitySettings(metrics_port=free_port(), metrics_token=SecretStr("s3cret"))
    return Observability(settings, registry)


def read(observability: Observability, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{observability.metrics_port}/metrics", headers=headers)


def test_celery_leaves_logging_alone(observability: Observability) -> None:
    """Celery installs no log handlers, and records of billiard's logger reach ours."""
    celery = Celery("test", set_as_current=False)
    wire_observability(celery, observability)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    celery.log.setup(loglevel=logging.DEBUG)
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert get_logger().propagate


def test_the_main_process_of_a_worker_serves_the_metrics(observability: Observability) -> None:
    """The port is open from `worker_ready` to the worker's shutdown, and requires the token."""
    wire_observability(Celery("test", set_as_current=False), observability)
    signals.worker_ready.send(sender=None)
    try:
        assert "things_total 1.0" in read(observability, Authorization="Bearer s3cret").text
        assert read(observability).status_code == 401
    finally:
        signals.worker_shutdown.send(sender=None)
    with pytest.raises(httpx.ConnectError):
        read(observability)


def test_a_forked_child_serves_nothing(observability: Observability) -> None:
    """A child that enters the context opens no port, because its parent has it open."""
    settings = ObservabilitySettings(metrics_port=observability.metrics_port)
    child = Observability(settings, CollectorRegistry())
    child._process = os.getppid()  # as if the parent had built it
    observability.serve()
    try:
        child.serve()
        assert child._server is None
        child.stop_serving()
        assert read(observability).status_code == 401
    finally:
        observability.stop_serving()


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def published(headers: dict[str, object]) -> dict[str, object]:
    """Return the headers of a message after the signal of its publication."""
    signals.before_task_publish.send(sender="any.task", headers=headers)
    return headers


def test_messages_of_a_task_carry_its_context(observability: Observability) -> None:
    """A message carries its sender's correlation id and trace; headers that are set already are kept."""
    wire_observability(Celery("test", set_as_current=False), observability)
    with request_context(RequestContext(correlation_id="abc", traceparent=TRACE)):
        handed_on = published({"tequipy_correlation_id": None})
        already_said = published({"tequipy_correlation_id": "mine"})
    assert (handed_on["tequipy_correlation_id"], handed_on["traceparent"]) == ("abc", TRACE)
    assert already_said["tequipy_correlation_id"] == "mine"
    assert "tequipy_correlation_id" not in published({})


def test_a_message_carries_its_publication_time(observability: Observability) -> None:
    """The header is the current time, or the message's ETA if that is later."""
    wire_observability(Celery("test", set_as_current=False), observability)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert published({})["tequipy_enqueued_at"] == pytest.approx(time.time(), abs=30)
    assert published({"eta": later.isoformat()})["tequipy_enqueued_at"] == pytest.approx(later.timestamp())


def test_a_taken_port_ends_the_worker(observability: Observability) -> None:
    """If the port is taken the process exits with the reason; Celery would only log an error."""
    wire_observability(Celery("test", set_as_current=False), observability)
    with (
        socket.create_server(("", observability.metrics_port or 0)),
        pytest.raises(SystemExit, match=r"port \d+ .*setting metrics_port"),
    ):
        signals.worker_ready.send(sender=None)

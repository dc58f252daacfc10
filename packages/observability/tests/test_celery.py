"""A worker under observation: its logging is ours, and its main process serves the metrics."""

import logging
import os
from collections.abc import Callable, Iterator

import httpx
import pytest
from billiard.util import get_logger
from celery import Celery, signals
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from tequipy_observability.celery import wire_observability
from tequipy_observability.infrastructure.process import Observability, ObservabilitySettings


@pytest.fixture(autouse=True)
def _restored_signals() -> Iterator[None]:
    """Disconnect what a test has connected."""
    used = (signals.setup_logging, signals.worker_ready, signals.worker_shutdown)
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
    """Celery sets up no handlers of its own, and what the pool says of its children reaches ours."""
    celery = Celery("test", set_as_current=False)
    wire_observability(celery, observability)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    celery.log.setup(loglevel=logging.DEBUG)
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert get_logger().propagate


def test_the_main_process_of_a_worker_serves_the_metrics(observability: Observability) -> None:
    """The port is open from the worker's being ready to its shutdown, and asks for the token."""
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
    """A child enters the same context and leaves the port to its parent, who has it open."""
    settings = ObservabilitySettings(metrics_port=observability.metrics_port)
    child = Observability(settings, observability.registry)
    child._process = os.getppid()  # built by the parent
    observability.serve()
    try:
        child.serve()
        assert child._server is None
        child.stop_serving()
        assert read(observability).status_code == 401
    finally:
        observability.stop_serving()

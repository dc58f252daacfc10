"""Signals to the shipped server: it drains, answers requests in progress, and ends in time."""

import contextlib
import signal
import time

import httpx
import pytest

from .instance import LOGIN, READINESS, StartApi, begin_login, eventually, listens, read_answer


def test_a_process_drains_after_sigterm(start_api: StartApi) -> None:
    """After SIGTERM the server is not ready and closes connections, but still accepts and answers requests."""
    instance = start_api(TEQUIPY_SERVER__DRAIN_PERIOD="2")
    instance.wait_until_ready()
    with httpx.Client(base_url=instance.url) as client, contextlib.ExitStack() as connections:
        assert "connection" not in client.get(READINESS).headers  # the connection is now idle
        in_flight, rest = begin_login(instance)
        connections.enter_context(in_flight)
        instance.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        eventually("a new connection gets 503", lambda: instance.status() == 503)
        while time.monotonic() - started < 1:
            assert instance.status() == 503, "the listener is still open"
        answer = client.get(READINESS)
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert answer.json() == {"status": "not_ready", "checks": {}}
        for path, status in (("/api/v1/health", 200), ("/nowhere", 404)):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["connection"]) == (status, "close")
        too_large = client.post(LOGIN, content=b" " * 100_000)
        assert (too_large.status_code, too_large.headers["connection"]) == (413, "close")
        eventually("the listener closes", lambda: not listens(instance))
        assert instance.process.poll() is None, "a request is in flight"
        in_flight.sendall(rest)
        answered = read_answer(in_flight)
    assert answered.startswith("http/1.1 401")
    assert answered.count("connection: close") == 1
    assert instance.process.wait(30) == -signal.SIGTERM
    assert "exception" not in instance.log.read_text()


def test_a_hanging_request_gets_503_at_the_shutdown(start_api: StartApi) -> None:
    """A request that does not finish in time gets a 503 problem document, and the process ends."""
    instance = start_api(TEQUIPY_SERVER__DRAIN_PERIOD="0", TEQUIPY_SERVER__SHUTDOWN_TIMEOUT="1")
    instance.wait_until_ready()
    hanging, _ = begin_login(instance)
    with hanging:
        instance.process.send_signal(signal.SIGTERM)
        answer = read_answer(hanging)
    assert answer.startswith("http/1.1 503")
    assert "application/problem+json" in answer
    assert "retry-after: 1" in answer
    assert instance.process.wait(30) == -signal.SIGTERM


def test_slow_clients_time_out_during_the_shutdown(start_api: StartApi) -> None:
    """During the shutdown a body that does not arrive gets 408 after its timeout instead of 503."""
    instance = start_api(
        TEQUIPY_SERVER__DRAIN_PERIOD="0", TEQUIPY_SERVER__SHUTDOWN_TIMEOUT="60", TEQUIPY_SERVER__BODY_TIMEOUT="2"
    )
    instance.wait_until_ready()
    slow, _ = begin_login(instance)
    with slow:
        instance.process.send_signal(signal.SIGTERM)
        answer = read_answer(slow)
    assert answer.startswith("http/1.1 408")
    assert instance.process.wait(30) == -signal.SIGTERM
    assert '"level":"ERROR"' not in instance.log.read_text()


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]], ids=str
)
def test_sigint_and_a_second_signal_end_at_once(start_api: StartApi, signals: list[signal.Signals]) -> None:
    """Ctrl-C skips the drain period, and a second signal ends the process although a request hangs."""
    instance = start_api(TEQUIPY_SERVER__DRAIN_PERIOD="100", TEQUIPY_SERVER__SHUTDOWN_TIMEOUT="100")
    instance.wait_until_ready()
    first, *second = signals
    with contextlib.ExitStack() as connections:
        if second:
            connections.enter_context(begin_login(instance)[0])
        instance.process.send_signal(first)
        for number in second:
            eventually("it drains", lambda: instance.status() == 503)
            instance.process.send_signal(number)
        assert instance.process.wait(30) in {0, *(-number for number in signals)}

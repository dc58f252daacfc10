"""The metrics' own port and the measurement of the event loop's lag."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from tequipy_observability.metrics.access import TRIES
from tequipy_observability.metrics.port import MAX_CONNECTIONS
from tequipy_observability.wiring import Observability, ObservabilitySettings

TOKEN = "s3cret-ünïcode"


def build(port: int | None = None, token: str | None = None) -> Observability:
    registry = CollectorRegistry()
    Counter("things", "Things counted.", registry=registry).inc()
    secret = SecretStr(token) if token else None
    return Observability(ObservabilitySettings(metrics_port=port, metrics_token=secret), registry)


@pytest.fixture
def url(free_port: Callable[[], int]) -> Iterator[str]:
    observability = build(free_port(), TOKEN)
    observability.serve()
    yield f"http://127.0.0.1:{observability.metrics_port}/metrics"
    observability.stop_serving()


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer wrong", b"Bearer \xff\xfe", TOKEN.encode(), f"Basic {TOKEN}".encode()],
    ids=["none", "empty", "no token", "wrong", "no text", "no scheme", "another scheme"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_port_asks_for_the_token(url: str, header: bytes | None, method: str) -> None:
    """A request without the right bearer token gets 401 without a body, whatever bytes it sends."""
    headers = {} if header is None else {b"Authorization": header}
    answer = httpx.request(method, url, headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"], answer.content) == (401, "Bearer", b"")


def test_the_token_reads_the_metrics(url: str) -> None:
    """The token may contain any character; the port responds to GET alone."""
    headers = {b"Authorization": f"Bearer {TOKEN}".encode()}
    assert "things_total 1.0" in httpx.get(url, headers=headers).text
    assert httpx.head(url, headers=headers).status_code == 405


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_port_answers_over_both_protocols(url: str, host: str) -> None:
    """A scraper reaches the port by IPv4 and by IPv6."""
    headers = {b"Authorization": f"Bearer {TOKEN}".encode()}
    assert httpx.get(url.replace("127.0.0.1", host), headers=headers).status_code == 200


def test_silent_connections_do_not_block_the_port(url: str) -> None:
    """With 100 silent connections the oldest are closed, and every scrape is served."""
    headers = {b"Authorization": f"Bearer {TOKEN}".encode()}
    before = threading.active_count()
    with contextlib.ExitStack() as silent:
        for _ in range(100):
            silent.enter_context(socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)))
        assert [httpx.get(url, headers=headers, timeout=30).status_code for _ in range(5)] == [200] * 5
        assert threading.active_count() - before <= MAX_CONNECTIONS


def test_guesses_of_the_token_are_limited(url: str) -> None:
    """After ten wrong tokens in a minute, the port responds 429 with `Retry-After`, even to the right token."""
    wrong, right = ({b"Authorization": f"Bearer {token}".encode()} for token in ("guess", TOKEN))
    assert [httpx.get(url, headers=wrong).status_code for _ in range(TRIES)] == [401] * TRIES
    for headers in (wrong, right):
        answer = httpx.get(url, headers=headers)
        assert (answer.status_code, answer.headers["Retry-After"], answer.content) == (429, "60", b"")


async def test_a_port_that_is_taken_is_named(free_port: Callable[[], int]) -> None:
    """The error names the port and the setting that chooses another."""
    port = free_port()
    with (
        socket.create_server(("", port)),
        pytest.raises(OSError, match=f"port {port} .*setting metrics_port"),
    ):
        async with build(port):
            raise AssertionError


async def test_a_blocked_event_loop_is_measured() -> None:
    """While the context is open, blocking the event loop shows in the histogram."""
    async with build() as observability:
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251 -- blocks on purpose

        def seen(above: str) -> float:
            def value(name: str, **labels: str) -> float:
                return observability.registry.get_sample_value(f"event_loop_lag_seconds_{name}", labels) or 0.0

            return value("count") - value("bucket", le=above)

        async with asyncio.timeout(10):
            while not seen("0.25"):
                await asyncio.sleep(0.01)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "tequipy-event-loop-lag"]

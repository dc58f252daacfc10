"""Clients that misuse connections: slow ones, huge heads, too many connections, and `Upgrade` with a body."""

import contextlib
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Self

import httpx
import psutil
import pytest

from tequipy_devstack.proving import HEALTH, Api, Deployment, Load, Sample, slowest
from tequipy_devstack.proving.apps import program

LOGIN = "/api/v1/auth/login"
LIMITED = ("/bin/sh", "-c", 'ulimit -n 1024; exec "$0" "$@"', program("tequipy-api"), "serve")
"""Starts the API as a process that may open 1,024 files."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process as many open files as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Connections:
    """Raw connections to an API, closed when the block ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.open:
            connection.close()

    def add(self, count: int, first: bytes = b"") -> None:
        """Open `count` connections, and send the first bytes on each."""
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
            self.open.append(connection)
            connection.sendall(first)

    def statuses(self) -> Counter[str]:
        """Return the state of each connection: `open`, or the status (or nothing) with which it was closed."""
        found = Counter[str]()
        for connection in self.open:
            connection.setblocking(False)
            try:
                answer = connection.recv(65_536)
            except BlockingIOError:
                found["open"] += 1
            except OSError:
                found["closed"] += 1
            else:
                found[answer[9:12].decode() or "closed"] += 1
        return found


@contextlib.contextmanager
def dripping(connections: list[socket.socket]) -> Iterator[None]:
    """Send one more byte on each connection every half second while the block lasts."""
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.5):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def p95(samples: list[Sample]) -> float:
    """Return the 95th percentile in milliseconds."""
    return quantiles([sample.seconds * 1000 for sample in samples], n=20)[18]


def rss(api: Api) -> float:
    """Return the resident memory of the API's process in megabytes."""
    return psutil.Process(api.pid).memory_info().rss / 1e6


def peak_rss(api: Api) -> float:
    """Return the peak resident memory of the API's process in megabytes."""
    status = Path(f"/proc/{api.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("requests", [pytest.param(1000, id="short"), pytest.param(5000, id="long")])
def test_slow_connections_hardly_slow_other_requests(deployment: Deployment, requests: int) -> None:
    """200 connections that send a byte every half second hardly slow other requests, and each times out."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n" % LOGIN.encode()
    with deployment.api(TEQUIPY_SERVER__HEAD_TIMEOUT="5", TEQUIPY_SERVER__BODY_TIMEOUT="8") as api:
        with Load(api.url, [HEALTH], rate=50) as alone:
            alone.send(requests)
        with Connections(api.port) as slow:
            slow.add(100, head + b"X-Slow: ")
            slow.add(100, head + b"Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n{")
            with dripping(slow.open), Load(api.url, [HEALTH], rate=50) as beside:
                beside.send(requests)
            ended = slow.statuses()
    print(
        f"\n/health alone: p95 {p95(alone.samples):.1f} ms; "
        f"beside 200 slow connections: p95 {p95(beside.samples):.1f} ms; "
        f"the slow ones after {requests / 50:.0f} s: {dict(ended)}"
    )
    assert all(sample.good for sample in alone.samples + beside.samples)
    assert ended == {"408": 200}


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "megabytes", [pytest.param(30, marks=pytest.mark.quick, id="quick"), pytest.param(300, id="long")]
)
def test_a_huge_head_is_not_kept(deployment: Deployment, megabytes: int) -> None:
    """A head of 30 MB, in one field or many, gives 431 without using memory or blocking others."""
    with deployment.api() as api:
        with Load(api.url, [HEALTH], rate=50) as alone:
            alone.send(200)
        before, answers = rss(api), []
        with Load(api.url, [HEALTH], rate=50) as beside:
            for piece in (b"x" * 1_000_000, b"X-Some: thing\r\n" * 66_667):
                with Connections(api.port) as one:
                    one.add(1, b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nX-Huge: x")
                    connection = one.open[0]
                    with contextlib.suppress(OSError):
                        for _ in range(megabytes):
                            connection.sendall(piece)
                        connection.sendall(b"\r\n\r\n")
                    with contextlib.suppress(OSError):
                        answers.append(connection.recv(1024)[9:12].decode())
            beside.send(100)
        after, peak = rss(api), peak_rss(api)
    print(
        f"\n{megabytes} MB of headers on a connection, twice: answered {answers}; "
        f"RSS {before:.0f} MB before, {peak:.0f} MB at most, {after:.0f} MB after; "
        f"/health alone: slowest {slowest(alone.samples):.3f} s, meanwhile {slowest(beside.samples):.3f} s"
    )
    assert answers == ["431", "431"]
    assert peak - before < megabytes / 2


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("many_files")
def test_more_connections_than_files_do_not_end_the_service(deployment: Deployment) -> None:
    """With 1,100 idle connections to a process that may open 1,024 files, others are still served."""
    body = {"email": "nobody@example.com", "password": "correct horse battery staple"}
    with deployment.api(*LIMITED, TEQUIPY_SERVER__HEAD_TIMEOUT="120") as api, Connections(api.port) as idle:
        idle.add(1100)
        answers = Counter[object]()
        for _ in range(20):
            for method, path in (("GET", "/api/v1/health"), ("POST", LOGIN), ("GET", "/api/v1/readiness")):
                try:
                    answer = httpx.request(method, f"{api.url}{path}", json=body if method == "POST" else None)
                    answers[path, answer.status_code] += 1
                except httpx.TransportError as error:
                    answers[path, type(error).__name__] += 1
        files = psutil.Process(api.pid).num_fds()
        ended = idle.statuses()
        logged = [line for line in api.log.read_text().splitlines() if "connection_limit_reached" in line]
    print(
        f"\n1,100 idle connections at ulimit -n 1024: {dict(answers)}; "
        f"files {files}; idle ones {dict(ended)}; log {logged}"
    )
    assert {key[1] for key in answers if isinstance(key, tuple)} <= {200, 401, 429}
    assert answers["/api/v1/health", 200] == answers["/api/v1/readiness", 200] == 20
    assert len(logged) == 1


@pytest.mark.prove
@pytest.mark.quick
def test_an_upgrade_is_ignored_and_its_body_delivered(deployment: Deployment) -> None:
    """`Upgrade: h2c` with a body, as in the JDK's first request, gives one response to that body."""

    def pieces_of(number: int, cuts: list[int]) -> list[bytes]:
        body = b'{"email": "nobody%d@example.com", "password": "correct horse battery staple"}' % number
        fields = [
            b"POST %b HTTP/1.1" % LOGIN.encode(),
            b"Connection: Upgrade, HTTP2-Settings",
            b"Content-Length: %d" % len(body),
            b"Host: x",
            b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
            b"Upgrade: h2c",
            b"User-Agent: Java-http-client/21",
            b"Content-Type: application/json",
        ]
        whole = b"\r\n".join([*fields, b"", body])
        places = [0, *(cut % len(whole) for cut in cuts), len(whole)]
        return [whole[start:end] for start, end in pairwise(places)]

    with deployment.api() as api, Connections(api.port) as one:
        one.add(1)
        connection, answers = one.open[0], []
        connection.settimeout(5)
        for number, cuts in enumerate(([], [-76], [50, -76, -60], [])):
            for piece in pieces_of(number, cuts):
                with contextlib.suppress(OSError):
                    connection.sendall(piece)
                time.sleep(0.05)
            answer = b""
            with contextlib.suppress(OSError):
                while not answer.endswith(b"}") and (piece := connection.recv(65_536)):
                    answer += piece
            answers.append([line[9:12].decode() for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")])
    print(f"\nUpgrade with a body, whole, in two and four pieces, whole again: statuses {answers}")
    assert answers == [["401"]] * 4  # the credentials arrived and are wrong

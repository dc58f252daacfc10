"""The tools of the proofs: load at a constant rate, link, balancer and programs."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from tequipy_devstack.processes import is_running
from tequipy_devstack.proving import (
    HEALTH,
    Balancer,
    Findings,
    Link,
    Load,
    Program,
    Route,
    Sample,
    count,
    endure,
    eventually,
    failed,
    in_background,
    slowest,
)

BAD = Route("GET", "/bad", 200)


class Backend(ThreadingHTTPServer):
    """A server whose readiness can be set, and which responds with its port."""

    daemon_threads = True
    ready = True

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1)
        well = self.path != "/bad" and (self.server.ready or not self.path.endswith("readiness"))
        word = {"status": "ready"} if well else {"code": "unavailable"}
        content = json.dumps({**word, "port": self.server.port}).encode()
        self.send_response(200 if well else 503)
        self.send_header("Content-Length", str(len(content)))
        if not well:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the signature of the standard library
        """Log nothing."""


@pytest.fixture
def backends() -> Iterator[tuple[Backend, Backend]]:
    pair = Backend(("127.0.0.1", 0), Handler), Backend(("127.0.0.1", 0), Handler)
    threads = [threading.Thread(target=backend.serve_forever, args=[0.02]) for backend in pair]
    for thread in threads:
        thread.start()
    yield pair
    for backend, thread in zip(pair, threads, strict=True):
        backend.shutdown()
        backend.server_close()
        thread.join()


@pytest.fixture
def backend(backends: tuple[Backend, Backend]) -> Backend:
    return backends[0]


def test_the_rate_does_not_depend_on_slow_responses(backend: Backend) -> None:
    """Requests are sent on time while every response takes a second, and leaving the block waits for responses."""
    with Load(backend.url, [Route("GET", "/slow", 200)], rate=100) as load:
        load.send(30)
        assert load.samples == []
    assert len(load.samples) >= 30
    assert failed(load.samples) == []


def test_each_request_is_recorded_as_it_ended(backend: Backend) -> None:
    """Outcomes name status and code, or the exception; unexpected ones count as failed."""
    with Load(backend.url, [HEALTH, BAD], rate=50) as load:
        load.send(10)
    assert set(count(load.samples)) == {"200 ready", "503 unavailable"}
    assert {sample.retry_after for sample in failed(load.samples)} == {"1"}
    with in_background(Link(1)) as nowhere, Load(f"http://127.0.0.1:{nowhere.port}", [HEALTH], rate=50) as load:
        load.send(2)
    assert set(count(failed(load.samples))) <= {"RemoteProtocolError", "ReadError"}


def test_an_outage_is_separated_from_its_surroundings() -> None:
    """An outage lasts from the fault to the first `ready` after its end; recovery is the part after the end."""

    def sample(sent_at: float, ended_at: float) -> Sample:
        return Sample("/", sent_at, ended_at, "200", good=True)

    findings = Findings(
        requests=[sample(0, 1), sample(1, 2.5), sample(3, 3.1), sample(4, 6.5), sample(6, 7)],
        probes=[sample(1, 1.1), sample(3, 3.1), sample(5, 5.5)],
        began=2,
        ended=4,
        recovered=5.5,
    )
    assert [request.sent_at for request in findings.inside] == [1, 3, 4]
    assert [request.sent_at for request in findings.outside] == [0, 6]
    assert [probe.sent_at for probe in findings.meanwhile] == [3, 5]
    assert findings.recovery_seconds == 1.5


def test_a_load_runs_before_during_and_after_a_fault(backend: Backend) -> None:
    """Without a fault nothing fails, and there are requests before and after."""
    findings = endure(nullcontext(), backend.url, [HEALTH], requests=20, rate=50)
    assert failed(findings.requests) == []
    assert min(len(findings.inside), len(findings.outside)) >= 20
    assert "failed outside the outage: 0" in findings.describe("nothing")


def test_a_link_has_the_configured_delay(backend: Backend) -> None:
    """All data is delayed in both directions; without a target, connections are refused."""
    with in_background(Link(backend.port)) as link, Load(f"http://127.0.0.1:{link.port}", [HEALTH], rate=20) as load:
        load.send(3)
        assert count(load.samples)["200 ready"]
        link.delay = 0.2
        eventually("an answer took both delays", lambda: slowest(load.samples) >= 0.4)
        link.delay, link.target = 0, None


def test_a_balancer_skips_backends_that_are_not_ready(backends: tuple[Backend, Backend]) -> None:
    """New connections go to ready backends in turn, to none if none is ready, and to one that is ready again."""
    one, other = backends

    def answering() -> set[int]:
        return {httpx.get(f"{balancer.url}/").json()["port"] for _ in range(4)}

    with in_background(Balancer([one.port, other.port])) as balancer:
        eventually("both are seen", lambda: len(balancer.ready) == 2)
        assert answering() == {one.port, other.port}
        one.ready = False
        eventually("one is left out", lambda: balancer.ready == (other.port,))
        assert answering() == {other.port}
        other.ready = False
        eventually("both are left out", lambda: balancer.ready == ())
        with pytest.raises(httpx.TransportError):
            answering()
        one.ready = True
        eventually("one is back", lambda: balancer.ready == (one.port,))
        assert answering() == {one.port}


def test_a_program_ends_with_its_block_and_may_be_killed(tmp_path: Path) -> None:
    """A program can be started, killed with its children and started again, and ends with the block."""
    sleeper = Program(["sh", "-c", "sleep 60 & echo $! >> pids; wait"], {"PATH": "/usr/bin:/bin"}, tmp_path / "log")
    pids = tmp_path / "pids"
    with sleeper:
        eventually("its child runs", lambda: pids.exists() and len(pids.read_text().split()) == 1)
        sleeper.kill()
        sleeper.start()
        eventually("its second child runs", lambda: len(pids.read_text().split()) == 2)
        assert sleeper.terminate() == -15
    started = {int(pid) for pid in pids.read_text().split()}
    assert [process for process in psutil.process_iter() if process.pid in started and is_running(process)] == []


LIVES = """
import os, signal, sys
from tequipy_devstack.proving.repeated_runs import fork_for_each_run
mortal = fork_for_each_run(deaths=3)
print("life" if mortal else "afterwards", flush=True)
if mortal:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_program_is_replaced_after_each_death() -> None:
    """Each killed child is replaced; after the last death the program itself continues."""
    result = subprocess.run([sys.executable, "-c", LIVES], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == ["life"] * 3 + ["afterwards"]

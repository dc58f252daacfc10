"""The shipped server as a real process: trusted proxies, limits and shutdown."""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tequipy_api.server import DrainingServer, serve
from tequipy_api.settings import ApiSettings

READINESS = "/api/v1/readiness"
LOGIN = "/api/v1/auth/login"
VERIFY = "/api/v1/auth/verify-email"


@dataclass
class Instance:
    """One running `tequipy-api serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self, path: str = READINESS) -> int:
        """Return the status of a request over a new connection, or 0 without a response."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}{path}").status_code
        return 0

    def wait_until_ready(self) -> None:
        eventually("the instance is ready or dead", lambda: self.process.poll() is not None or self.status() == 200)
        assert self.process.poll() is None, self.log.read_text()


StartApi = Callable[..., Instance]


@pytest.fixture
def start_api(environment: dict[str, str], tmp_path: Path, free_port: Callable[[], int]) -> Iterator[StartApi]:
    """Return a function that starts `tequipy-api serve` on its own port or `port`; `also` changes its environment.

    `before` is a shell command that runs before the server replaces the shell: `exec >&-` or `ulimit -n 1024`.
    """
    instances: list[Instance] = []

    def start(*, port: int | None = None, before: str = ":", **also: str) -> Instance:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
        port, log = port or free_port(), tmp_path / f"api-{len(instances)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *("/bin/sh", "-c", f'{before}; exec "$0" "$@"', Path(sys.executable).with_name("tequipy-api")),
                    *("serve", "--port", str(port)),
                ],
                env=inherited | environment | also,
                cwd=tmp_path,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        instances.append(Instance(process, port, log))
        return instances[-1]

    yield start
    for instance in instances:
        instance.process.kill()
        instance.process.wait()


def eventually(what: str, probe: Callable[[], bool], *, within: float = 60) -> None:
    """Poll until the probe is true; fail with `what` after the deadline."""
    deadline = time.monotonic() + within
    while not probe():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)


def begin_login(instance: Instance) -> tuple[socket.socket, bytes]:
    """Return a connection with an incomplete request, and the rest of the request."""
    body = json.dumps({"email": "nobody@example.com", "password": "correct horse battery staple"}).encode()
    connection = socket.create_connection(("127.0.0.1", instance.port), timeout=30)
    head = [f"POST {LOGIN} HTTP/1.1", "Host: test", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    connection.sendall("\r\n".join([*head, "Expect: 100-continue", "", ""]).encode())
    assert connection.recv(1024).startswith(b"HTTP/1.1 100"), "the app waits for the body"
    connection.sendall(body[:10])
    return connection, body[10:]


def read_answer(connection: socket.socket) -> str:
    """Return all data until the server closes the connection."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer.decode().lower()


def listens(instance: Instance) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", instance.port), timeout=5):
        return True
    return False


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        ("[]", {"8.8.8.8": "127.0.0.1"}),
        ('["10.0.0.0/8"]', {"8.8.8.8": "127.0.0.1"}),
        (
            '["127.0.0.0/8", "10.0.0.0/8"]',
            {
                "8.8.8.8": "8.8.8.8",
                "6.6.6.6, 8.8.8.8": "8.8.8.8",
                "6.6.6.6, 8.8.8.8, 10.1.2.3": "8.8.8.8",
                "6.6.6.6, 2001:db8::1": "2001:db8::1",
            },
        ),
    ],
)
def test_only_trusted_proxies_determine_the_client_address(
    start_api: StartApi, trusted: str, expected: dict[str, str]
) -> None:
    """X-Forwarded-For of a trusted peer is read from right to left up to the first untrusted address."""
    instance = start_api(TEQUIPY_TRUSTED_PROXIES=trusted, WEB_CONCURRENCY="2", FORWARDED_ALLOW_IPS="*")
    instance.wait_until_ready()
    for forwarded in expected:
        answer = httpx.get(f"{instance.url}/api/v1/auth/me", headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == 401
        assert "server" not in answer.headers

    def logged() -> list[str]:
        lines = [json.loads(line) for line in instance.log.read_text().splitlines()]
        return [line["ip"] for line in lines if line.get("route") == "/api/v1/auth/me"]

    eventually("every access is logged", lambda: len(logged()) == len(expected))
    assert logged() == list(expected.values())


def test_clients_that_disconnect_cause_no_error(start_api: StartApi) -> None:
    """A client that disconnects in the middle of a body causes no error."""
    instance = start_api()
    instance.wait_until_ready()
    for _ in range(20):
        begin_login(instance)[0].close()
        head = [f"POST {LOGIN} HTTP/1.1", "Host: test", "Content-Type: application/json", "Transfer-Encoding: chunked"]
        with socket.create_connection(("127.0.0.1", instance.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*head, "", "5", '{"ema']).encode())

    def accesses() -> list[str]:
        return [line for line in instance.log.read_text().splitlines() if '"route":"/api/v1/auth/login"' in line]

    eventually("every request is over", lambda: len(accesses()) == 40)
    assert not [line for line in instance.log.read_text().splitlines() if '"level":"ERROR"' in line]
    assert instance.status("/api/v1/health") == 200


def test_a_server_without_standard_output_works(start_api: StartApi) -> None:
    """Started with closed standard output (`>&-`), the server works without logs."""
    instance = start_api(before="exec >&-")
    instance.wait_until_ready()
    assert [instance.status(path) for path in ("/api/v1/health", "/nowhere", "/api/v1/auth/me")] == [200, 404, 401]
    assert instance.log.read_text() == ""


def test_connections_are_limited(start_api: StartApi) -> None:
    """A large head gives 431, a slow head or body 408, and `Upgrade` is ignored; each gets one response."""
    instance = start_api(
        TEQUIPY_SERVER__MAX_HEAD_SIZE="2000", TEQUIPY_SERVER__HEAD_TIMEOUT="1", TEQUIPY_SERVER__BODY_TIMEOUT="1"
    )
    instance.wait_until_ready()
    post = f"POST {LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
    upgrade = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"

    def ask(*pieces: bytes) -> str:
        with socket.create_connection(("127.0.0.1", instance.port), timeout=30) as connection:
            for piece in pieces:
                connection.sendall(piece)
            answer = read_answer(connection)
        assert answer.count("http/1.1 ") == answer.count("x-correlation-id: ") == answer.count("cache-control: ") == 1
        assert "connection: close\r\n" in answer
        return answer.split()[1]

    assert ask(post + b"X-Huge: " + b"x" * 2000) == "431"
    assert ask(post + b"X-Slow: ") == "408"
    assert ask(post + b"Content-Length: 10\r\n\r\n{") == "408"
    assert ask(post + upgrade + b"Content-Length: 2\r\n\r\n{}") == "422"
    assert ask(post + upgrade + b"Content-Length: 2\r\n\r\n", b"{", b"}") == "422"
    assert ask(b"\x16\x03\x01") == "400"


def test_more_connections_than_files_are_a_wrong_setting(start_api: StartApi) -> None:
    """A connection limit over the file limit ends the process with status 78 and the possible maximum."""
    instance = start_api(before="ulimit -n 1024", TEQUIPY_SERVER__MAX_CONNECTIONS="1000")
    assert instance.process.wait(60) == os.EX_CONFIG
    (line,) = instance.log.read_text().splitlines()
    assert line.startswith("TEQUIPY_SERVER__MAX_CONNECTIONS: should be at most 881: ")


def test_a_body_without_a_length_has_the_limit_too(start_api: StartApi) -> None:
    """A chunked megabyte is refused with 413 after 64 KiB of it have arrived."""
    instance = start_api()
    instance.wait_until_ready()
    answer = httpx.post(f"{instance.url}{LOGIN}", content=(b"x" * 65_536 for _ in range(2)))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


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
        eventually("a new connection hears of it", lambda: instance.status() == 503)
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


def test_start_up_objects_are_excluded_from_garbage_collection(
    settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first request all existing objects are excluded from garbage collection."""
    left: list[int] = []
    monkeypatch.setattr(DrainingServer, "run", lambda _: left.append(len(gc.get_objects())))
    built = len(gc.get_objects())
    try:
        serve(settings, host="127.0.0.1", port=0)
    finally:
        gc.unfreeze()
    assert left[0] < built / 10

"""Logs, metrics and correlation ids of the shipped app under hostile requests."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_auth.api import RATE_POLICIES

PROGRAM = Path(__file__).with_name("careless_program.py")
MAX_LINE = 16 * 1024
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass
class Server:
    """The program `careless_program.py` as a process."""

    process: subprocess.Popen[bytes]
    port: int
    secret: str
    log: Path

    async def ready(self) -> None:
        async with asyncio.timeout(40):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self.process.poll() is None, self.log.with_suffix(".stderr").read_text()
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    def stop(self) -> list[dict[str, Any]]:
        """Stop the server and return its log, after checking that each line is a JSON object."""
        self.process.send_signal(signal.SIGINT)  # ends without the drain period
        self.process.wait(30)
        assert self.log.with_suffix(".stderr").read_text() == ""
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Disable rate limits, because these tests send many requests."""
    return environment | {f"TEQUIPY_RATE_LIMITS__{name.upper()}": "off" for name in ("default", *RATE_POLICIES)}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def run(stdout: int | None = None, **also: str) -> Server:
        port, log, secret = free_port(), tmp_path / "log", f"PLANTED{uuid4().hex}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
        with log.open("wb") as file, log.with_suffix(".stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, PROGRAM, "serve", "--port", str(port)],
                env=inherited | environment | {"PLANTED_SECRET": secret} | also,
                cwd=tmp_path,
                stdout=file if stdout is None else stdout,
                stderr=stderr,
            )
        started.append(Server(process, port, secret, log))
        return started[-1]

    yield run
    for server in started:
        server.process.kill()
        server.process.wait()


class Client:
    """Sends raw requests over one connection, which it reopens after the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and head of the response."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        writer.write(head + b"Host: x\r\n" + length + b"\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", answer.lower())
        await reader.readexactly(int(found[1]) if found else 0)
        if b"connection: close" in answer.lower():
            self.close()
        return int(answer.split(b" ", 2)[1]), answer

    def close(self) -> None:
        """Close the connection if there is one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def hostile(dice: random.Random, secret: str) -> tuple[bytes, bytes]:
    """Return head and body of a request that tries to inject text or a secret into the log."""
    forged = quote('\r\n{"level":"INFO","message":"forged"}\x1b[31m\x00')
    login = b"POST /api/v1/auth/login HTTP/1.1\r\nContent-Type: application/json\r\n"
    jwt = f"eyJhbGciOiJFUzI1NiJ9.{secret}.c2lnbmF0dXJl"
    number = dice.randrange(1_000_000)

    def get(path: str, *headers: bytes) -> tuple[bytes, bytes]:
        return b"".join((f"GET {path} HTTP/1.1\r\n".encode(), *(header + b"\r\n" for header in headers))), b""

    requests: list[Callable[[], tuple[bytes, bytes]]] = [
        lambda: get(f"/nowhere/{number}/{forged}"),
        lambda: get(f"/api/v1/auth/me?access_token={secret}&password={secret}&n={number}"),
        lambda: get("/api/v1/auth/me", f"Authorization: Bearer {jwt}".encode()),
        lambda: get("/api/v1/auth/me", f"User-Agent: {jwt} redis://:{secret}@x Bearer {secret}".encode()),
        lambda: get("/api/v1/auth/me", b"User-Agent: " + b"x" * dice.randrange(490, 515) + jwt.encode()),
        lambda: get("/api/v1/auth/me", b'User-Agent: \xff\xfe\xc3"\\n{}', b"X-Correlation-ID: \xe4{}"),
        lambda: get("/api/v1/auth/me", b"User-Agent: " + b"y " * 20_000, b"X-Huge: " + b"z" * 30_000),
        lambda: get("/api/v1/auth/me", f"Cookie: __Host-refresh=rt1.{'a' * 22}.{secret}".encode()),
        lambda: get("/api/v1/auth/me", f"Referer: https://user:{secret}@host/".encode()),
        lambda: get("/api/v1/auth/me/"),
        lambda: get(f"/careless/fail/{number}"),
        lambda: get(f"/careless/log/{number}"),
        lambda: (f"METHOD{number} /api/v1/auth/me HTTP/1.1\r\n".encode(), b""),
        lambda: (login, json.dumps({"email": "a@example.com", "password": secret}).encode()),
        lambda: (login, json.dumps({"email": [secret], "password": {"password": secret}}).encode()),
        lambda: (login, f'{{"password": "{secret}", \xff'.encode("latin-1")),
        lambda: (login, b"[" * 50_000),
        lambda: (login, b" " * 70_000),
    ]
    return dice.choice(requests)()


async def under_hostile_requests(server: Server, requests: int) -> list[dict[str, Any]]:
    """Send requests, and return the log after checking that each is one event and no line contains the secret."""
    await server.ready()
    dice = random.Random(requests)  # noqa: S311 -- seeded, for the same requests in each run
    client, statuses = Client(server.port), Counter[int]()
    for _ in range(requests):
        status, answer = await client.send(*hostile(dice, server.secret))
        statuses[status] += 1
        assert b"x-correlation-id: " in answer.lower()
    client.close()
    lines = server.stop()
    written = server.log.read_bytes()
    events = [line for line in lines if line["message"] == "http_request"]
    planted, longest = written.count(server.secret.encode()), max(map(len, written.splitlines()))
    print(
        f"\n{requests} hostile requests: {len(lines)} lines, all JSON, the longest of {longest} bytes; "
        f"{len(events)} events; statuses {dict(statuses)}; "
        f"planted secrets found: {planted}"
    )
    assert len(events) == requests
    assert planted == 0
    assert longest <= MAX_LINE
    return lines


def assert_well_formed(line: dict[str, Any]) -> None:
    """Check the fields that every line has, and the types of optional fields."""
    assert TIMESTAMP.fullmatch(line["timestamp"])
    assert line["level"] in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    for name in ("message", "logger", "service", "environment", "version"):
        assert isinstance(line[name], str), line
    for name in ("correlation_id", "trace_id", "span_id", "method", "route", "ip", "user_id", "exception"):
        assert isinstance(line.get(name, ""), str), line
    assert isinstance(line.get("status", 0), int)
    assert isinstance(line.get("duration_ms", 0.0), float)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("requests", [300, pytest.param(10_000, marks=pytest.mark.prove)])
async def test_no_request_breaks_the_log_or_shows_a_secret(start: Callable[..., Server], requests: int) -> None:
    """Whatever is sent, each log line is JSON of at most 16 KiB, one event per request, without the secret."""
    lines = await under_hostile_requests(start(), requests)
    for line in lines:
        assert_well_formed(line)
    events = [line for line in lines if line["message"] == "http_request"]
    assert {event["level"] for event in events if event["status"] >= 500} == {"ERROR"}
    assert {event["level"] for event in events if event["status"] < 500} == {"INFO"}
    assert {event["status"] // 100 for event in events} >= {2, 4, 5}
    ids = Counter(line["correlation_id"] for line in lines if line["message"] == "request_failed")
    assert ids
    assert set(ids.values()) == {1}  # each error is logged once


async def test_requests_work_without_a_reader_of_the_log(start: Callable[..., Server]) -> None:
    """The server continues after the reader of its standard output has ended."""
    reader, writer = os.pipe()
    server = start(stdout=writer)
    os.close(writer)
    await server.ready()
    os.close(reader)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        statuses = [(await client.get("/api/v1/auth/me")).status_code for _ in range(20)]
    assert statuses == [401] * 20
    assert server.process.poll() is None


async def test_the_server_itself_responds_to_invalid_http(start: Callable[..., Server]) -> None:
    """Invalid HTTP does not reach the app: the server responds 400 and logs one event with the same correlation id."""
    server = start()
    await server.ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01 garbage\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    lines = server.stop()
    (event,) = [line for line in lines if line["message"] == "http_request"]
    assert (event["level"], event["status"], event["reason"]) == ("INFO", 400, "malformed")
    assert f"x-correlation-id: {event['correlation_id']}\r\n" in answer.decode().lower()


async def test_random_requests_add_at_most_five_series(client: httpx.AsyncClient) -> None:
    """1,000 random paths, 1,000 slash redirects and 50 invented methods add at most five series to a new app."""
    await client.get("/metrics")
    before = series(await client.get("/metrics"))
    for _ in range(1000):
        assert (await client.get(f"/{uuid4()}/{uuid4()}")).status_code == 404
        assert (await client.get("/api/v1/auth/me/")).status_code == 307
    for _ in range(50):
        assert (await client.request(f"M{uuid4().hex}", "/api/v1/auth/me")).status_code == 405
    added = series(await client.get("/metrics")) - before
    print(f"\nseries before: {len(before)}, added: {len(added)}", *sorted(added), sep="\n  ")
    assert len(added) <= 5


ORIGIN = "https://shop.example.com"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api/v1/health", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("DELETE", "/api/v1/health", {}, 405),
        ("INVENTED", "/api/v1/health", {}, 405),
        ("GET", "/api/v1/auth/me/", {}, 307),
        ("GET", "/api/v1/auth/me", {}, 401),
        ("POST", "/api/v1/auth/login", {"Content-Type": "application/json"}, 422),
        ("POST", "/api/v1/auth/login", {"Content-Length": "1000000000"}, 413),
        ("OPTIONS", "/api/v1/auth/login", {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}, 200),
        ("OPTIONS", "/api/v1/auth/login", {"Origin": "null", "Access-Control-Request-Method": "POST"}, 403),
        ("GET", "/bug", {}, 500),
    ],
)
async def test_every_answer_has_the_correlation_id(
    settings: ApiSettings, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Errors of any layer, redirects and preflight responses carry the client's id once; an invalid one is replaced."""
    app = create_app(settings.model_copy(update={"allowed_origins": (ORIGIN,)}))

    async def bug() -> None:
        raise LookupError

    app.add_api_route("/bug", bug)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client:
        for sent, expected in (("abc.1", r"abc\.1"), ("{not good}", "[0-9a-f]{32}")):
            answer = await client.request(method, path, headers=headers | {"X-Correlation-ID": sent})
            assert answer.status_code == status, answer.text
            (found,) = answer.headers.get_list("X-Correlation-ID")
            assert re.fullmatch(expected, found)
            if answer.headers.get("Content-Type") == "application/problem+json":
                assert answer.json()["correlation_id"] == found


def series(answer: httpx.Response) -> set[str]:
    """Return the series of a metrics response: its lines without values."""
    assert answer.status_code == 200
    return {line.rpartition(" ")[0] for line in answer.text.splitlines() if not line.startswith("#")}

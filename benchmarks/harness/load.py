"""Two load generators with the same result: wrk where it is installed, and otherwise one in this process."""

import json
import math
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

CONNECTIONS: Final = 16
_BETWEEN_HEAD_AND_BODY: Final = b"\r\n\r\n"
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RESULT: Final = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)
_SCRIPT: Final = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(99), bad))
end
"""


class BadResponses(Exception):
    """Some responses were errors, so that the figures would not be those of the route."""


@dataclass(frozen=True)
class Request:
    """One request, which is repeated."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None

    @property
    def body(self) -> str:
        """The body as text; empty without one."""
        return "" if self.json is None else json.dumps(self.json)

    @property
    def all_headers(self) -> dict[str, str]:
        """The header fields, with the type of the body."""
        return {**({} if self.json is None else {"Content-Type": "application/json"}), **self.headers}

    def encoded(self) -> bytes:
        """Return the bytes of the request in HTTP/1.1."""
        fields = {"Host": "127.0.0.1", **self.all_headers}
        if self.body:
            fields["Content-Length"] = str(len(self.body.encode()))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body.encode()


@dataclass(frozen=True)
class Load:
    """What a client saw: the number of responses, the seconds, and the 99th percentile of the latency in seconds."""

    responses: int
    seconds: float
    p99: float


class Generator(Protocol):
    """Sends one request again and again over 16 connections, each of which waits for its response."""

    name: str

    def run(self, port: int, request: Request, seconds: int) -> Load:
        """Send requests for some seconds; raises `BadResponses` unless every status is 2xx."""
        ...


class Wrk:
    """wrk 4, in a process of its own with one thread."""

    name = "wrk"

    def __init__(self, command: str) -> None:
        self._command = command

    def run(self, port: int, request: Request, seconds: int) -> Load:
        """Send requests for some seconds; raises `BadResponses` unless every status is 2xx."""
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "request.lua"
            script.write_text(_script(request), encoding="utf-8")
            command = [self._command, "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s"]
            url = f"http://127.0.0.1:{port}{request.path}"
            output = subprocess.run(  # noqa: S603 -- our own command line
                [*command, f"--script={script}", url],
                check=True,
                capture_output=True,
                text=True,
                timeout=seconds + 30,
            ).stdout
        found = _RESULT.search(output)
        if found is None:
            raise BadResponses(f"wrk printed no result: {output}")
        responses, microseconds, p99, bad = map(int, found.groups())
        if bad or not responses:
            raise BadResponses(f"{request.method} {request.path}: {bad} errors among {responses} responses")
        return Load(responses, microseconds / 1e6, p99 / 1e6)


def _script(request: Request) -> str:
    lines = [f"wrk.method = {json.dumps(request.method)}"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.all_headers.items()]
    if request.body:
        lines.append(f"wrk.body = {json.dumps(request.body)}")
    return "\n".join([*lines, _SCRIPT])


class Bundled:
    """A loop over sockets in this process. It costs more per request than wrk, so a fast server may wait for it."""

    name = "bundled generator"

    def run(self, port: int, request: Request, seconds: int) -> Load:
        """Send requests for some seconds; raises `BadResponses` unless every status is 2xx."""
        data, latencies, bad = request.encoded(), list[float](), 0
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        sent, received = dict[int, float](), dict[int, bytes]()
        by_number = {client.fileno(): client for client in clients}
        poller = select.epoll()
        try:
            began = now = time.perf_counter()
            for number, client in by_number.items():
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poller.register(number, select.EPOLLIN)
                sent[number], received[number] = now, b""
                client.sendall(data)
            while now - began < seconds:
                for number, _ in poller.poll(1):
                    piece = by_number[number].recv(65536)
                    if not piece:
                        raise BadResponses(f"{request.method} {request.path}: a connection was closed")
                    received[number] += piece
                    if (status := _complete(received[number])) is None:
                        continue
                    bad += status // 100 != 2  # noqa: PLR2004 -- RFC 9110, section 15.3
                    received[number] = b""
                    now = time.perf_counter()
                    latencies.append(now - sent[number])
                    sent[number] = now
                    by_number[number].sendall(data)
                now = time.perf_counter()
        finally:
            poller.close()
            for client in clients:
                client.close()
        if bad or not latencies:
            raise BadResponses(f"{request.method} {request.path}: {bad} errors among {len(latencies)} responses")
        return Load(len(latencies), now - began, percentile(latencies, 99))


def _complete(data: bytes) -> int | None:
    """Return the status of a response with `Content-Length`, or None while bytes of it are missing."""
    head, separator, body = data.partition(_BETWEEN_HEAD_AND_BODY)
    if not separator:
        return None
    found = _CONTENT_LENGTH.search(head)
    return int(head[9:12]) if found is not None and len(body) >= int(found[1]) else None


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the least value that at least this percentage of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def find_generator() -> Generator:
    """Return wrk if it is installed, and the bundled generator otherwise."""
    command = shutil.which("wrk")
    return Wrk(command) if command else Bundled()

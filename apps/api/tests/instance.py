"""A running `tequipy-api serve`, and what tests send to it."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tequipy_devstack.proving import fetch
from tequipy_devstack.proving.forked import ForkedProcess

READINESS = "/api/v1/readiness"
LOGIN = "/api/v1/auth/login"


@dataclass
class Instance:
    """One running `tequipy-api serve`."""

    process: subprocess.Popen[bytes] | ForkedProcess
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self, path: str = READINESS) -> int:
        """Return the status of a request over a new connection, or 0 without a response."""
        with contextlib.suppress(httpx.TransportError):
            return fetch(f"{self.url}{path}").status_code
        return 0

    def wait_until_ready(self) -> None:
        eventually("the instance is ready or dead", lambda: self.process.poll() is not None or self.status() == 200)
        assert self.process.poll() is None, self.log.read_text()


StartApi = Callable[..., Instance]


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

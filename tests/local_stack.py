"""`make dev` with real processes, for tests of the whole system."""

import email
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import httpx
import psutil

from tequipy_devstack.ports import free_port

from .public_modules import ROOT


def eventually(what: str, probe: Callable[[], bool], *, within: float = 60) -> None:
    """Poll until the probe is true; fail with `what` after the deadline."""
    deadline = time.monotonic() + within
    while not probe():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)


@dataclass
class Stack:
    """A running local stack."""

    process: subprocess.Popen[bytes]
    home: Path
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mailbox(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def front_end(self) -> str:
        return f"http://127.0.0.1:{self.port + 2}"

    def mails(self, correlation_id: str) -> list[Message]:
        parsed = [email.message_from_bytes(path.read_bytes()) for path in self.home.glob("mail/*.eml")]
        return [mail for mail in parsed if mail["X-Correlation-ID"] == correlation_id]

    def lines(self, process: str, text: str) -> list[str]:
        """Return the log lines of one process that contain a text."""
        return [line for line in self.log.read_text().splitlines() if line.startswith(process) and text in line]

    def register(self, correlation_id: str) -> None:
        answer = httpx.post(
            f"{self.url}/api/v1/auth/register",
            headers={"X-Correlation-ID": correlation_id},
            json={"email": f"{correlation_id}@example.com", "password": "correct horse battery staple"},
        )
        assert answer.status_code == 202, answer.text

    def worker_processes(self) -> list[psutil.Process]:
        descendants = psutil.Process(self.process.pid).children(recursive=True)
        return [
            process
            for process in descendants
            if {"run"} & set(process.cmdline()) and "worker" in str(process.cmdline())
        ]


@contextmanager
def local_stack(home: Path, log: Path) -> Iterator[Stack]:
    """Run the stack until the block ends; nothing of it may be left then."""
    port = free_port(3)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    environment |= {
        "TEQUIPY_DEV_HOME": str(home),
        "TEQUIPY_DEV_PORT": str(port),
        # A killed worker's message returns after this time; the stack's default of one minute would work too.
        "TEQUIPY_CELERY__VISIBILITY_TIMEOUT": "32",
        "TEQUIPY_CELERY__TIME_LIMIT": "30",
        "TEQUIPY_CELERY__SOFT_TIME_LIMIT": "28",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("tequipy-devstack"), "run"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        running = Stack(process, home, port, log)
        try:
            eventually(
                "the stack is ready",
                lambda: process.poll() is not None or "Tequipy is ready" in log.read_text(),
                within=90,
            )
            assert process.poll() is None, log.read_text()
            yield running
        finally:
            descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGINT)
            process.wait(60)
            _, left = psutil.wait_procs(descendants, timeout=5)
            assert left == [], "Ctrl-C left processes behind"

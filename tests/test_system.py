"""The whole system as users meet it: `make dev` with real processes, and the README's walkthrough."""

import email
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from tequipy_devstack.ports import free_port

ROOT = Path(__file__).parents[1]
# One stack serves all these tests, so they must run in one pytest process.
pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]


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


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home, log, port = tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("log") / "stack.log", free_port()
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


def readme_session(stack: Stack) -> str:
    """Return the README's shell session with the URL and mailbox of the tested stack."""
    block: str
    (block,) = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert "http://127.0.0.1:8000" in block
    assert ".dev/mail" in block
    return block.replace("http://127.0.0.1:8000", stack.url).replace(".dev/mail", str(stack.home / "mail"))


def test_the_readme_walkthrough_works(stack: Stack) -> None:
    """The README's commands give the documented responses, and the old cookie is refused at the end."""
    result = subprocess.run(
        ["/bin/bash", "-c", readme_session(stack)], capture_output=True, text=True, check=True, timeout=120
    )
    statuses = re.findall(r"^HTTP/1.1 (\d{3})", result.stdout, flags=re.MULTILINE)
    assert statuses == ["202", "204", "200", "200", "204", "401"], result.stdout
    assert '"email":"journey-' in result.stdout
    assert "session_revoked" in result.stdout


def test_one_correlation_id_is_in_all_logs_and_the_mail(stack: Stack) -> None:
    """The id sent with a registration is in the API's log, in the worker's log and in the mail."""
    correlation_id = f"trace-{uuid4().hex}"
    stack.register(correlation_id)
    eventually("the mail has arrived", lambda: len(stack.mails(correlation_id)) == 1)
    eventually("the worker of mails has logged it", lambda: bool(stack.lines("mailer", correlation_id)))
    assert stack.lines("api", correlation_id)


def test_a_killed_worker_loses_no_mail(stack: Stack) -> None:
    """After `kill -9` of the whole worker right after a registration, the mail arrives, with one Message-ID."""
    correlation_id = f"killed-{uuid4().hex}"
    victims = stack.worker_processes()
    assert victims
    stack.register(correlation_id)
    for victim in victims:
        victim.kill()
    eventually("the mail has arrived all the same", lambda: bool(stack.mails(correlation_id)), within=120)
    assert len({mail["Message-ID"] for mail in stack.mails(correlation_id)}) == 1

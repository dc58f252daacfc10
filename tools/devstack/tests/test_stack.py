"""The whole local stack with real servers, and small programs in place of Tequipy's."""

import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tequipy_devstack.ports import free_port
from tequipy_devstack.processes import DevstackError, await_end, family, is_running
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.stack import MAIL_QUEUE, OTHER_QUEUES, Home, Stack
from tequipy_worker.catalogue import QUEUES

# Prints its arguments and variables for all of Tequipy's programs; `serve` responds, `create-admin` reads a password.
STAND_IN = """#!{python}
import http.server, os, sys, time
class Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
words = " ".join(sys.argv[1:])
print("runs:", words, os.environ["TEQUIPY_ENVIRONMENT"])
if words.startswith("serve"):
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Yes).serve_forever()
elif words.startswith("create-admin"):
    print("password:", sys.stdin.read())
elif words.startswith(("run", "beat", "relay")):
    print("state:", os.environ["TEQUIPY_WORKER__STATE_FOLDER"])
    time.sleep(600)
"""


@dataclass
class Tools:
    """Two replacement programs, and the command line that starts them instead of Tequipy's."""

    folder: Path

    def command(self, *words: str) -> list[str]:
        code = (
            "import sys; from pathlib import Path; from tequipy_devstack import cli, stack\n"
            f"stack._program = lambda name: Path({str(self.folder)!r}, name)\n"
            f"sys.argv = ['tequipy-devstack', *{list(words)!r}]; cli.main()"
        )
        return [sys.executable, "-c", code]

    def run(self, *words: str, home: Path, text: str = "", **given: str) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself."""
        environment = self.environment(home, **given)
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def environment(self, home: Path, **given: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
        return {**inherited, "TEQUIPY_DEV_HOME": str(home), **given}


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("tequipy-api", "tequipy-worker"):
        (folder / name).write_text(STAND_IN.format(python=sys.executable))
        (folder / name).chmod(0o755)
    return Tools(folder)


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    log: Path

    def awaits(self, pattern: str) -> None:
        deadline = time.monotonic() + 30
        while not re.search(pattern, self.log.read_text(), flags=re.MULTILINE):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


Run = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def run(tools: Tools, tmp_path: Path) -> Run:
    @contextmanager
    def run(home: Path, **given: str) -> Iterator[Running]:
        log = tmp_path / f"log-{free_port()}"
        environment = tools.environment(home, **{"TEQUIPY_DEV_PORT": str(free_port(2)), **given})
        with log.open("wb") as output:
            process = subprocess.Popen(
                tools.command("run"), cwd=tmp_path, env=environment, stdout=output, stderr=output, process_group=0
            )
        members: list[psutil.Process] = []
        try:
            running = Running(process, log)
            running.awaits("^stack   . Tequipy is ready")
            members = family(process.pid)
            yield running
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(30)
            assert await_end(members, timeout=10) == []

    return run


def test_one_command_runs_everything_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """The stack migrates, runs the five programs, prints their addresses, and keeps its data across restarts."""
    home = tmp_path / "home"
    with run(home, TEQUIPY_DEV_PORT=(port := str(free_port(2)))) as stack:
        output = stack.log.read_text()
        assert re.search("^migrate . runs: migrate upgrade head local$", output, re.MULTILINE)
        assert re.search(f"^api     . runs: serve --host 127.0.0.1 --port {port} local$", output, re.MULTILINE)
        worker, mailer = f"run --queues {OTHER_QUEUES}", f"run --queues {MAIL_QUEUE}"
        for name, words in (("worker", worker), ("mailer", mailer), ("beat", "beat"), ("relay", "relay")):
            stack.awaits(f"^{name:8}. runs: {words} local$")
            state = home / "worker" / "mailer" if name == "mailer" else home / "worker"
            stack.awaits(f"^{name:8}. state: {state}$")
        for text in (
            f"http://127.0.0.1:{port}/docs",
            f"http://127.0.0.1:{int(port) + 1} ({home / 'mail'})",
            "make admin EMAIL=",
        ):
            assert text in output
        PostgresServer(home / "postgres").execute("CREATE TABLE memory AS SELECT 1", "tequipy")
        sink = Home(home).read_environment()["TEQUIPY_MAIL__SMTP_URL"]
        with smtplib.SMTP("127.0.0.1", int(sink.rpartition(":")[2])) as client:
            client.sendmail("a@example.com", "b@example.com", "To: b@example.com\r\n\r\nHello")
    assert stack.process.returncode == 0
    with run(home):
        assert PostgresServer(home / "postgres").execute("SELECT * FROM memory", "tequipy") == "1\n"
        assert len(list((home / "mail").glob("*.eml"))) == 1


def test_the_two_workers_consume_every_queue_once() -> None:
    """Mails have a worker of their own, and each queue of the catalogue has one of the two."""
    assert sorted([MAIL_QUEUE, *OTHER_QUEUES.split(",")]) == sorted(QUEUES)


def test_beside_the_running_stack(run: Run, tools: Tools, tmp_path: Path) -> None:
    """A second stack on the same home is refused, on another home not; an admin is created in the right one."""
    home = tmp_path / "home"
    before = tools.run("admin", "a@example.com", home=home)
    assert "no stack runs on" in before.stderr
    assert before.returncode == 1
    with run(home) as stack:
        second = tools.run("run", home=home)
        assert second.returncode == 1
        assert f"a stack already runs on {home} (process {stack.process.pid})" in second.stderr
        admin = tools.run("admin", "-a@example.com", home=home, text="secret")
        assert admin.stdout == "runs: create-admin --email -a@example.com local\npassword: secret\n"
        with run(tmp_path / "other home"):
            pass


def test_a_stack_that_was_killed_leaves_nothing_and_starts_again(run: Run, tmp_path: Path) -> None:
    """`kill -9` of the supervisor ends all its processes, and the next start finds the data."""
    home = tmp_path / "home"
    with run(home) as stack:
        PostgresServer(home / "postgres").execute("CREATE TABLE memory AS SELECT 1", "tequipy")
        members = family(stack.process.pid)
        stack.process.kill()
        assert await_end(members, timeout=20) == []
    with run(home):
        assert PostgresServer(home / "postgres").execute("SELECT * FROM memory", "tequipy") == "1\n"


def last_argument(process: psutil.Process) -> str:
    """Return the last argument of a process; nothing if it has ended meanwhile."""
    with suppress(psutil.Error):
        return (process.cmdline() or [""])[-1]
    return ""


def test_killed_processes_are_restarted(run: Run, tmp_path: Path) -> None:
    """A killed program and a killed server run again within seconds, at the same address."""
    home = tmp_path / "home"
    with run(home) as stack:
        valkey = ValkeyServer(home / "valkey")
        first, port = psutil.Process(valkey.pid), valkey.port
        first.kill()
        stack.awaits("^stack   . Valkey died; it starts again")
        (beat,) = [process for process in family(stack.process.pid) if last_argument(process) == "beat"]
        beat.kill()
        stack.awaits("^beat    . ended with status -9; starts again in 0.5 s\n(.*\n)*beat    . runs: beat")
        deadline = time.monotonic() + 10
        while valkey.pid == first.pid or not valkey._answers():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert is_running(psutil.Process(valkey.pid))
        assert valkey.port == port


def test_given_servers_are_used_instead(run: Run, tmp_path: Path, empty_database_url: str, redis_url: str) -> None:
    """With a given PostgreSQL and Redis, in the environment or `.env`, none is started; given values override."""
    home = tmp_path / "home"
    (tmp_path / ".env").write_text(f"TEQUIPY_CACHE__URL={redis_url}\nTEQUIPY_CELERY__TIME_LIMIT=7\nOTHER=1\n")
    with run(home, TEQUIPY_DATABASE__URL=empty_database_url):
        variables = Home(home).read_environment()
    address, _, database = redis_url.rpartition("/")
    assert variables["TEQUIPY_DATABASE__URL"] == empty_database_url
    assert variables["TEQUIPY_CACHE__URL"] == redis_url
    assert variables["TEQUIPY_CELERY__BROKER_URL"] == f"{address}/{int(database) + 1}"
    assert variables["TEQUIPY_CELERY__TIME_LIMIT"] == "7"
    assert variables["TEQUIPY_STORAGE__URL"] == f"file://{home}/storage"
    assert "OTHER" not in variables
    assert not (home / "postgres").exists()
    assert not (home / "valkey").exists()


def test_a_failed_start_reports_the_reason(tools: Tools, tmp_path: Path, redis_server: ValkeyServer) -> None:
    """A taken port, an invalid port and a failed migration end the command with a message, without leftovers."""
    home = tmp_path / "home"
    taken = tools.run("run", home=home, TEQUIPY_DEV_PORT=str(redis_server.port))
    assert taken.returncode == 1
    assert f"port {redis_server.port} is taken" in taken.stderr
    for port in ("x", "70000"):
        assert "from 1 to 65533" in tools.run("run", home=home, TEQUIPY_DEV_PORT=port).stderr
    (tools.folder / "tequipy-api").write_text("#!/bin/sh\necho no such table\nexit 3\n")
    broken = tools.run("run", home=home, TEQUIPY_DEV_PORT=str(free_port(2)))
    assert broken.stdout == "migrate | no such table\n"
    assert "migrating the database ended with status 3" in broken.stderr
    assert not psutil.pid_exists(PostgresServer(home / "postgres").pid)


def test_what_a_home_keeps_for_other_commands_is_its_owners_alone(tmp_path: Path) -> None:
    """Any values are read back unchanged from a private file; without a running stack it is an error."""
    home, values = Home(tmp_path / "home"), {"A": 'it\'s "quoted"\nover lines', "B": ""}
    with home.locked():
        home.write_environment(values)
        assert home.read_environment() == values
        assert home.environment_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(DevstackError, match="no stack runs"):
        home.read_environment()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported variables override `.env`; an empty value counts as unset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TEQUIPY_DEV_PORT=8111\nTEQUIPY_APP_NAME=file\nTEQUIPY_CACHE__URL=\n")
    monkeypatch.setenv("TEQUIPY_APP_NAME", "environment")
    stack = Stack.read()
    assert (stack.port, stack.home.folder) == (8111, tmp_path / ".dev")
    assert stack.given["TEQUIPY_APP_NAME"] == "environment"
    assert "TEQUIPY_CACHE__URL" not in stack.given


@pytest.mark.parametrize(("given", "url"), [("", "http://127.0.0.1:8113"), ("https://a.example", "https://a.example")])
def test_links_in_mails_lead_to_the_front_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, url: str
) -> None:
    """The public URL is that of the example two ports further, if there is one, and that of the user in any case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEQUIPY_DEV_PORT", "8111")
    monkeypatch.setenv("TEQUIPY_PUBLIC_URL", given)
    assert Stack.read().public_url == (given or "http://127.0.0.1:8111")
    (tmp_path / "examples/spa").mkdir(parents=True)
    assert Stack.read().public_url == url


def test_a_home_that_cannot_be_written_to_is_one_line(tools: Tools, tmp_path: Path) -> None:
    """TEQUIPY_DEV_HOME is reported with status 78 and without a traceback."""
    (tmp_path / "file").touch()
    result = tools.run("run", home=tmp_path / "file" / "home")
    assert (result.returncode, result.stdout) == (os.EX_CONFIG, "")
    assert result.stderr == "TEQUIPY_DEV_HOME: cannot be written to: Not a directory\n"


def test_a_file_of_settings_that_is_not_utf8_is_one_line(tools: Tools, tmp_path: Path) -> None:
    """`.env` is reported with status 78 and without a traceback."""
    (tools.folder / ".env").write_bytes(b"TEQUIPY_APP_NAME=caf\xe9\n")
    result = tools.run("run", home=tmp_path / "home")
    assert (result.returncode, result.stdout, result.stderr) == (os.EX_CONFIG, "", ".env: should be UTF-8 text\n")

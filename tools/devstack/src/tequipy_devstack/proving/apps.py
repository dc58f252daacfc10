"""The shipped apps as real processes, with servers and folders of their own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self

import httpx
import psutil

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.ports import free_port
from tequipy_devstack.processes import await_end, end_process, family, kill, signal_family, tied
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.proving.waiting import eventually, fetch
from tequipy_devstack.servers import ValkeyServer

_END_SECONDS = 45.0
"""Longer than any of the apps needs for an orderly shutdown."""


class Program:
    """A command that runs while the block lasts, with its output in `log`; its descendants end with it.

    Start it from the test's main thread, because the kernel ends it when the thread that started it ends.
    """

    def __init__(self, command: list[str | Path], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._command = command
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the command's first process."""
        return self._running().pid

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._running().poll()

    def start(self) -> None:
        """Start the command, also again after it has ended."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own command line
                tied(self._command, death_signal=Signals.SIGKILL),
                cwd=self.log.parent,  # so that a developer's `.env` is not read
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def kill(self) -> None:
        """End the command and all its descendants by SIGKILL at once."""
        process = self._running()
        await_end(signal_family(process.pid, Signals.SIGKILL), timeout=_END_SECONDS)
        process.wait()

    def terminate(self) -> int:
        """Stop the command by SIGTERM, wait for its end and return its exit status."""
        process = self._running()
        members = family(process.pid)
        process.terminate()
        try:
            return process.wait(_END_SECONDS)
        finally:
            kill(members)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} has not been started")
        return self._process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process = self._running()
        if process.poll() is None:
            end_process(psutil.Process(process.pid), Signals.SIGTERM, timeout=_END_SECONDS)
            process.wait()


class Api(Program):
    """`tequipy-api serve`; entering it waits until it is ready."""

    def __init__(self, command: list[str | Path], environment: Mapping[str, str], log: Path, *, port: int) -> None:
        super().__init__([*command, "--port", str(port)], environment, log)
        self.port = port

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Return whether its readiness is 200 now."""
        try:
            return fetch(f"{self.url}/api/v1/readiness").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def await_ready(self) -> None:
        """Return when it is ready."""
        eventually("the API is ready", lambda: self._ended() or self.is_ready())
        if self._ended():
            raise RuntimeError(f"the API ended while starting: {self.log.read_text()[-2000:]}")

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.await_ready()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _ended(self) -> bool:
        return self._running().poll() is not None


class Deployment:
    """Both apps with all their servers; `settings` are additional variables by their full names, which override.

    Hashes are cheap and rate limits are off, so that the load is limited neither by the processor nor by a policy.
    """

    def __init__(
        self, folder: Path, *, database_url: str, redis: ValkeyServer, mails: MailSink, **settings: str
    ) -> None:
        self.folder = folder
        self.storage = folder / "objects"
        self._numbers = count()
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith("TEQUIPY_")} | {
            "TEQUIPY_ENVIRONMENT": "test",
            "TEQUIPY_PUBLIC_URL": "https://app.example.com",
            "TEQUIPY_AUTH__BCRYPT_COST": "4",
            "TEQUIPY_AUTH__POLICY__ACCESS_TOKEN_TTL": "7200",  # one login serves all the proofs of a module
            "TEQUIPY_AUTH__POLICY__SESSIONS_PER_USER": "1000000",  # one account logs in many times
            "TEQUIPY_SERVER__DRAIN_PERIOD": "0",
            "TEQUIPY_DATABASE__URL": database_url,
            "TEQUIPY_CACHE__URL": redis.url(0),
            # Cached values expire from memory between two requests, so that every cached read asks Redis.
            "TEQUIPY_CACHE__POLICIES": '{"user_profile": {"ttl": 300, "l1_ttl": 0.02}}',
            "TEQUIPY_CELERY__BROKER_URL": redis.url(1),
            "TEQUIPY_CELERY__SOFT_TIME_LIMIT": "28",
            "TEQUIPY_CELERY__TIME_LIMIT": "30",
            "TEQUIPY_CELERY__VISIBILITY_TIMEOUT": "32",
            "TEQUIPY_CELERY__SOFT_SHUTDOWN_TIMEOUT": "2",
            "TEQUIPY_MAIL__SMTP_URL": mails.url,
            "TEQUIPY_STORAGE__URL": self.storage.as_uri(),
            **{
                f"TEQUIPY_RATE_LIMITS__{policy}": "off"
                for policy in ("DEFAULT", "REGISTER", "LOGIN", "REFRESH", "FORGOT")
            },
            **settings,
        }

    def api(self, *command: str | Path, **settings: str) -> Api:
        """Return `tequipy-api serve`, or `command` with the same options; entering it starts it."""
        command = command or (program("tequipy-api"), "serve")
        return Api([*command], self.environment | settings, self._new_log("api"), port=free_port())

    def worker(self, *command: str | Path, **settings: str) -> Program:
        """Return `tequipy-worker run`, or `command`; entering it starts it."""
        command = command or (program("tequipy-worker"), "run")
        return self._process("worker", [*command], settings)

    def relay(self, *command: str | Path, **settings: str) -> Program:
        """Return `tequipy-worker relay`, or `command`; entering it starts it."""
        command = command or (program("tequipy-worker"), "relay")
        return self._process("relay", [*command], settings)

    def scheduler(self, *command: str | Path, **settings: str) -> Program:
        """Return `tequipy-worker beat`, or `command`; entering it starts it."""
        command = command or (program("tequipy-worker"), "beat")
        return self._process("beat", [*command], settings)

    def migrate(self) -> None:
        """Create the tables."""
        self.command("migrate", "upgrade", "head")

    def create_admin(self) -> None:
        """Create the account that the load logs in to."""
        self.command("create-admin", "--email", ADMIN, text=PASSWORD)

    def _process(self, name: str, command: list[str | Path], settings: dict[str, str]) -> Program:
        """Return a process of the worker app, with a state folder of its own, because processes do not share one."""
        log = self._new_log(name)
        own = {"TEQUIPY_WORKER__STATE_FOLDER": str(log.with_suffix(""))}
        return Program(command, self.environment | own | settings, log)

    def _new_log(self, name: str) -> Path:
        return self.folder / f"{name}-{next(self._numbers)}.log"

    def command(self, *arguments: str, text: str = "") -> str:
        """Run `tequipy-api` to its end and return its output; `text` is its standard input."""
        result = subprocess.run(  # noqa: S603 -- our own command line
            [program("tequipy-api"), *arguments],
            cwd=self.folder,
            env=self.environment,
            input=text,
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
        )
        return result.stdout


def program(name: str) -> Path:
    """Return the path of a command in the current Python environment, activated or not."""
    return Path(sys.executable).with_name(name)

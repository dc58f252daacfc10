"""The local stack: its servers and programs, the folder of its state, and the variables of its programs."""

import asyncio
import contextlib
import fcntl
import http.client
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.pages import FrontEnd, Mailbox, PageServer
from tequipy_devstack.ports import is_free
from tequipy_devstack.processes import DevstackError
from tequipy_devstack.servers import PostgresServer, Server, ValkeyServer
from tequipy_devstack.supervisor import Program, Supervisor

STATE_FOLDER = "TEQUIPY_WORKER__STATE_FOLDER"
MAIL_QUEUE = "email"
OTHER_QUEUES = "default,reports,aggregation"
"""The queues of two workers, so that slow mails do not delay other tasks."""
USUAL_PORTS = (3000, 4200, 5173, 8080)
"""The ports of the development servers of front ends, whose pages may call the API."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Home:
    """The private folder of one stack: data, mails, stored objects, and a lock file that is held while it runs."""

    folder: Path

    @property
    def mail(self) -> Path:
        """The folder of mails, one `.eml` file each."""
        return self.folder / "mail"

    @property
    def environment_file(self) -> Path:
        """The file with the variables of the running stack, in lines `NAME=value` that a shell can source."""
        return self.folder / "env"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder; raises `DevstackError` if another stack holds it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise DevstackError(f"a stack already runs on {self.folder} (process {lock.read()})") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Write the stack's variables for commands that are run beside it."""
        self.environment_file.touch(mode=0o600)
        self.environment_file.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items()))

    def read_environment(self) -> dict[str, str]:
        """Return the variables of the running stack; raises `DevstackError` if none runs."""
        try:
            with self.locked():
                pass
        except DevstackError:
            lines = shlex.split(self.environment_file.read_text())
            return dict(line.split("=", 1) for line in lines)
        raise DevstackError(f"no stack runs on {self.folder}: start one by `make dev`")


@dataclass(frozen=True)
class Stack:
    """The user's choices: home folder, port, TEQUIPY_ variables, and the sources to watch."""

    home: Home
    port: int
    given: Mapping[str, str]
    sources: Sequence[Path]
    front_end: Path
    """The folder with the example of a front end; it is not served if there is none."""

    @property
    def public_url(self) -> str:
        """Where links in mails lead: to the front end, or to the API if there is none."""
        return self.given.get("TEQUIPY_PUBLIC_URL") or f"http://127.0.0.1:{self._front_end_port or self.port}"

    @property
    def _front_end_port(self) -> int | None:
        return self.port + 2 if self.front_end.is_dir() else None

    @classmethod
    def read(cls) -> "Stack":
        """Read the choices from the environment and from `.env` in the current folder; the environment wins."""
        everything = {**dotenv_values(".env"), **os.environ}
        given = {name: value for name, value in everything.items() if name.startswith("TEQUIPY_") and value}
        port = given.pop("TEQUIPY_DEV_PORT", "8000")
        if not port.isdecimal() or not 0 < int(port) < 65534:  # noqa: PLR2004 -- two more ports follow
            raise DevstackError("TEQUIPY_DEV_PORT should be a number from 1 to 65533")
        folder = Path(given.pop("TEQUIPY_DEV_HOME", ".dev")).absolute()
        sources = [*Path().glob("packages/*/src"), *Path().glob("apps/*/src")]
        return cls(Home(folder), int(port), given, sources, Path("examples/spa").absolute())

    def run(self) -> None:
        """Run the whole stack until a signal ends it."""
        for number in _STOP_SIGNALS:  # until the event loop handles the signals
            signal.signal(number, signal.default_int_handler)
        with self.home.locked(), contextlib.ExitStack() as resources:
            for port in (self.port, self.port + 1, self._front_end_port):
                if port and not is_free(port):
                    raise DevstackError(
                        f"port {port} is taken: choose others, as in `TEQUIPY_DEV_PORT={self.port + 10} make dev`"
                    )
            resources.enter_context(PageServer(self.port + 1, Mailbox(self.home.mail)))
            if self._front_end_port:
                resources.enter_context(PageServer(self._front_end_port, FrontEnd(self.front_end, api_port=self.port)))
            servers: list[Server] = []
            variables = self._variables(resources, servers)
            self.home.write_environment(variables)
            supervisor = Supervisor({**os.environ, **variables, "PYTHONUNBUFFERED": "1"})
            asyncio.run(self._supervise(supervisor, servers, variables[STATE_FOLDER]))
        supervisor.say("stack", "stopped")

    def _variables(self, resources: contextlib.ExitStack, servers: list[Server]) -> dict[str, str]:
        """Start the servers that the user did not provide, and return the variables for the programs."""
        folder = self.home.folder
        database_url = self.given.get("TEQUIPY_DATABASE__URL")
        if database_url is None:
            postgres = resources.enter_context(PostgresServer(folder / "postgres", durable=True))
            servers.append(postgres)
            if not postgres.has_database("tequipy"):
                postgres.create_database("tequipy")
            database_url = postgres.url("tequipy")
        cache_url = self.given.get("TEQUIPY_CACHE__URL")
        if cache_url is None:
            valkey = resources.enter_context(ValkeyServer(folder / "valkey", durable=True))
            servers.append(valkey)
            cache_url = valkey.url()
        cache = urlsplit(cache_url)
        cache_database = cache.path.strip("/")
        broker_database = int(cache_database) + 1 if cache_database.isdecimal() else 1
        sink = resources.enter_context(MailSink(self.home.mail))
        return {
            "TEQUIPY_ENVIRONMENT": "local",
            "TEQUIPY_PUBLIC_URL": self.public_url,
            "TEQUIPY_ALLOWED_ORIGINS": json.dumps(self._origins()),
            "TEQUIPY_DATABASE__URL": database_url,
            "TEQUIPY_CACHE__URL": cache_url,
            "TEQUIPY_CELERY__BROKER_URL": cache._replace(path=f"/{broker_database}").geturl(),
            "TEQUIPY_CELERY__TIME_LIMIT": "40",
            "TEQUIPY_CELERY__SOFT_TIME_LIMIT": "30",
            "TEQUIPY_CELERY__VISIBILITY_TIMEOUT": "60",
            "TEQUIPY_CELERY__SOFT_SHUTDOWN_TIMEOUT": "5",
            "TEQUIPY_MAIL__SMTP_URL": sink.url,
            "TEQUIPY_MAIL__SENDER": "tequipy@example.com",
            "TEQUIPY_STORAGE__URL": (folder / "storage").as_uri(),
            STATE_FOLDER: str(folder / "worker"),
            "TEQUIPY_SERVER__DRAIN_PERIOD": "0",  # there is no balancer
            **self.given,
        }

    def _origins(self) -> list[str]:
        """Return the origins of front ends on this machine, each by both names of the machine."""
        ports = [*USUAL_PORTS, *([self._front_end_port] if self._front_end_port else [])]
        return [f"http://{host}:{port}" for port in ports for host in ("127.0.0.1", "localhost")]

    async def _supervise(self, supervisor: Supervisor, servers: Sequence[Server], state_folder: str) -> None:
        work = asyncio.ensure_future(self._work(supervisor, servers, state_folder))
        for number in _STOP_SIGNALS:
            # A second signal cancels again, which ends everything at once.
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _work(self, supervisor: Supervisor, servers: Sequence[Server], state_folder: str) -> None:
        mailer = {STATE_FOLDER: str(Path(state_folder) / "mailer")}
        api, worker = _program("tequipy-api"), _program("tequipy-worker")
        if status := await supervisor.once(Program("migrate", [api, "migrate", "upgrade", "head"])):
            raise DevstackError(f"migrating the database ended with status {status}: see the lines above")
        work = [
            supervisor.keep(Program("api", [api, "serve", "--host", "127.0.0.1", "--port", str(self.port)])),
            supervisor.keep(Program("worker", [worker, "run", "--queues", OTHER_QUEUES])),
            supervisor.keep(Program("mailer", [worker, "run", "--queues", MAIL_QUEUE], mailer)),
            supervisor.keep(Program("beat", [worker, "beat"])),
            supervisor.keep(Program("relay", [worker, "relay"])),
            supervisor.reload(*self.sources),
            supervisor.announce(lambda: self._is_ready(supervisor, mailer), self._welcome()),
            _keep_servers(servers, supervisor),
        ]
        tasks = [asyncio.ensure_future(part) for part in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _welcome(self) -> list[str]:
        front_end = [f"  example  http://127.0.0.1:{self._front_end_port}"] if self._front_end_port else []
        return [
            "Tequipy is ready.",
            f"  API      http://127.0.0.1:{self.port}/api/v1",
            f"  docs     http://127.0.0.1:{self.port}/docs",
            f"  mailbox  http://127.0.0.1:{self.port + 1} ({self.home.mail})",
            *front_end,
            "  admin    make admin EMAIL=you@example.com",
            "Ctrl-C stops everything.",
        ]

    async def _is_ready(self, supervisor: Supervisor, mailer: Mapping[str, str]) -> bool:
        """Return whether the API and the worker's processes are ready."""
        if await asyncio.to_thread(_readiness, self.port) != http.HTTPStatus.OK:
            return False
        health: list[str | Path] = [_program("tequipy-worker"), "health", "--ready"]
        return await supervisor.succeeds(Program("", [*health, "run", "beat", "relay"])) and await supervisor.succeeds(
            Program("", [*health, "run"], mailer)
        )


async def _keep_servers(servers: Sequence[Server], supervisor: Supervisor) -> None:
    """Restart servers that died, on the same port with the same data."""
    while True:
        for server in servers:
            if not server.running:
                supervisor.say("stack", f"{server.name} died; it starts again (log: {server.log})")
                with contextlib.suppress(DevstackError):  # tried again in a second
                    server.start()
        await asyncio.sleep(1)


def _readiness(port: int) -> int:
    """Return the status of the API's readiness, or 0 without a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/v1/readiness")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _program(name: str) -> Path:
    """Return the path of a command in the current Python environment, activated or not."""
    return Path(sys.executable).with_name(name)


def run_admin(email: str) -> None:
    """Replace this process by the command that creates an admin; it reads the password from standard input."""
    variables = Stack.read().home.read_environment()
    command = [str(_program("tequipy-api")), "create-admin", "--email", email]
    os.execve(command[0], command, {**os.environ, **variables})  # noqa: S606 -- our own command

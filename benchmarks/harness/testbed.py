"""The databases of a benchmark, and the servers that it starts: ours, those of peers, and single packages."""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import httpx

from harness.servers import PEERS, Cores, Server, on_cores, peers_python, serving, uvicorn_command
from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.servers import PostgresServer, ValkeyServer

SERVED: Final = Path(__file__).parents[1] / "served"
RAISED_LIMIT: Final = "99999/1"
"""The highest rate that the settings allow, so that the load of one client passes."""


@dataclass
class Testbed:
    """The databases, the cores, and the folder in which servers are started."""

    folder: Path
    cores: Cores
    postgres: PostgresServer
    valkey: ValkeyServer
    mails: MailSink
    stack: ExitStack

    def __post_init__(self) -> None:
        self._numbers = count()

    def start(self, name: str, command: list[str | Path], folder: Path, **variables: str) -> Server:
        """Start a server that runs until the end."""
        log = self.folder / f"{name}-{next(self._numbers)}.log"
        return self.stack.enter_context(serving(command, self.cores, folder=folder, log=log, variables=variables))

    def peer(self, name: str, *, access_log: bool = False, **variables: str) -> Server:
        """Start a peer in its own environment."""
        command = uvicorn_command(f"{name}:app", peers_python(), access_log=access_log)
        return self.start(name, command, PEERS, **variables)

    def alone(self, app: str) -> Server:
        """Start one package of this project in a foreign app."""
        command = uvicorn_command(f"alone:{app}", Path(sys.executable))
        return self.start(app, command, SERVED, CACHE_URL=self.valkey.url(3))

    def deployment(self, **settings: str) -> Deployment:
        """Return a migrated deployment with one account; `settings` are additional variables.

        Settings are those of a deployment, except that the rate limit is so high that the load passes.
        """
        deployment = Deployment(
            self.folder,
            database_url=self.postgres.create_database("tequipy"),
            redis=self.valkey,
            mails=self.mails,
            TEQUIPY_CACHE__POLICIES="{}",
            TEQUIPY_RATE_LIMITS__DEFAULT=RAISED_LIMIT,
            **settings,
        )
        deployment.migrate()
        deployment.create_admin()
        return deployment

    def service(self, deployment: Deployment) -> Server:
        """Start the API, everything on, with the feature of the benchmarks."""
        environment = {name: value for name, value in deployment.environment.items() if name.startswith("TEQUIPY_")}
        return self.start("service", [sys.executable, SERVED / "whole.py"], self.folder, **environment)


@contextmanager
def databases(folder: Path) -> Iterator[tuple[PostgresServer, ValkeyServer, MailSink]]:
    """Start PostgreSQL, Redis and a mail server in a folder, and stop them at the end."""
    with (
        PostgresServer(folder / "postgres") as postgres,
        ValkeyServer(folder / "valkey") as valkey,
        MailSink(folder / "mails") as mails,
    ):
        yield postgres, valkey, mails


@contextmanager
def migrated_deployment(**settings: str) -> Iterator[Deployment]:
    """Yield a migrated deployment with one account, in a folder of its own; its processes may use all cores."""
    with tempfile.TemporaryDirectory() as name, databases(Path(name)) as (postgres, valkey, mails):
        database_url = postgres.create_database("tequipy")
        deployment = Deployment(Path(name), database_url=database_url, redis=valkey, mails=mails, **settings)
        deployment.migrate()
        deployment.create_admin()
        yield deployment


@contextmanager
def testbed() -> Iterator[Testbed]:
    """Start the databases on the cores that the servers under test do not use, and stop everything at the end."""
    cores = Cores.of_this_machine()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tequipy-bench-")))
        stack.enter_context(on_cores(cores.others))
        postgres, valkey, mails = stack.enter_context(databases(folder))
        with ExitStack() as servers:
            yield Testbed(folder, cores, postgres, valkey, mails, servers)


def log_in(client: httpx.Client) -> Mapping[str, str]:
    """Log in to the service, and return the body of the response."""
    body = {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}
    tokens: Mapping[str, str] = client.post("/api/v1/auth/login", json=body).raise_for_status().json()
    return tokens


def bearer(access_token: str) -> Mapping[str, str]:
    """Return the header that authenticates a request."""
    return {"Authorization": f"Bearer {access_token}"}

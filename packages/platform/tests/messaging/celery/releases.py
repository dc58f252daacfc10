"""Processes of `release_program.py`, messages for them, and the effects that they had."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from tequipy_devstack.processes import freeze_family, kill
from tequipy_devstack.servers import PostgresServer
from tequipy_platform import SystemClock
from tequipy_platform.database import DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

PROGRAM = Path(__file__).with_name("release_program.py")
VERSIONS = {"OLD": "1.0", "NEW": "2.0"}


@dataclass
class Releases:
    """Starts workers and relays of either release beside the same servers."""

    folder: Path
    postgres: PostgresServer
    database_url: str
    broker_url: str
    mail_url: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """Folders of other sources of the packages, by release, as PYTHONPATH names them."""

    def start(self, name: str, role: str, release: str = "OLD") -> subprocess.Popen[bytes]:
        command: list[str | Path] = [
            sys.executable,
            PROGRAM,
            role,
            release,
            self.broker_url,
            self.database_url,
            self.mail_url,
        ]
        environment = os.environ | {"PYTHONPATH": self.sources.get(release, "")}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.running[name] = process
        return process

    def stop(self, name: str) -> None:
        """Stop a process as a deployment does."""
        process = self.running.pop(name)
        process.terminate()
        process.wait(30)

    def kill(self, name: str) -> None:
        """`kill -9` a process and its children."""
        process = self.running.pop(name)
        if process.poll() is None:
            kill(freeze_family(process.pid))
        process.wait()

    def kill_all(self) -> None:
        for name in list(self.running):
            self.kill(name)

    def sql(self, statement: str) -> list[str]:
        """Run a statement by psql, and return its rows."""
        name = self.database_url.rpartition("/")[2].partition("?")[0]
        return self.postgres.execute(statement, database=name).splitlines()

    def add(self, write: Callable[[SqlUnitOfWork], None], release: str = "OLD") -> None:
        """Commit one unit of work of a producer."""

        async def commit() -> None:
            settings = DatabaseSettings(url=SecretStr(self.database_url))
            async with (
                build_database(settings, app_version=VERSIONS[release]) as database,
                SqlUnitOfWork(database, SystemClock(), uuid7) as work,
            ):
                write(work)

        asyncio.run(commit())

    def effects(self) -> Counter[str]:
        """Return the number of effects by task and number of the message."""
        return Counter(self.sql("select task || ' ' || number from public.effects"))

    def states(self) -> Counter[str]:
        """Return the number of messages and events by state."""
        return Counter(self.sql("select state from platform.outbox"))

    def settle(self, *, within: float) -> None:
        """Wait until no message is unsettled."""
        deadline = time.monotonic() + within
        while set(self.states()) - {"done", "dead"}:
            query = "select state, task, attempts, deaths, error from platform.outbox where settled_at is null"
            assert time.monotonic() < deadline, (self.states(), self.sql(query)[:20], self.logs())
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

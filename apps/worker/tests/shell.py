"""Runs the worker's commands as real processes, with the tasks of `shell_program.py`, and reads what they did."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from signal import Signals
from typing import Any

from tequipy_devstack.processes import freeze_family, kill
from tequipy_devstack.proving import eventually
from tequipy_platform import SystemClock
from tequipy_platform.database import DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

PROGRAM = Path(__file__).with_name("shell_program.py")


@dataclass
class Shell:
    """The commands of one test, which share a folder, a database and a broker; each name has its own log."""

    environment: dict[str, str]
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a command whose state folder is that of `name`."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, PROGRAM, *arguments],
                cwd=self.folder,
                env=self._variables(name) | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.running.append(process)
        return process

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `tequipy-worker` to its end, with the state folder of `name`."""
        return subprocess.run(
            [Path(sys.executable).with_name("tequipy-worker"), *arguments],
            cwd=self.folder,
            env=self._variables(name),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def health(self, name: str, *arguments: str) -> int:
        """Return the status of `tequipy-worker health`."""
        return self.run(name, "health", *arguments).returncode

    def health_costs(self, name: str, *arguments: str) -> list[float]:
        """Return the processor time of five runs of `health`, in seconds, in ascending order."""

        def cost() -> float:
            before = getrusage(RUSAGE_CHILDREN)
            self.health(name, *arguments)
            after = getrusage(RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        return sorted(cost() for _ in range(5))

    def await_health(self, name: str, status: int, *arguments: str, within: float = 60) -> None:
        """Wait until `health` ends with this status."""
        what = f"health {arguments} is {status}"
        eventually(what, lambda: self.health(name, *arguments) == status, within=within, every=0.5)

    async def add(self, task: str, **payload: Any) -> None:
        """Commit a message for a task."""
        settings = DatabaseSettings.model_validate({"url": self.environment["TEQUIPY_DATABASE__URL"]})
        async with build_database(settings) as database, SqlUnitOfWork(database, SystemClock(), uuid7) as work:
            work.outbox.add(task, **payload)

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return what the tasks have noted."""
        file = self.folder / "events"
        lines = map(json.loads, file.read_text(encoding="utf-8").splitlines() if file.exists() else [])
        return [line for line in lines if line["event"] == event]

    def await_events(self, event: str, number: int, *, within: float = 60) -> list[dict[str, Any]]:
        """Wait until tasks have noted that many events of a kind, and return them."""
        eventually(f"{number} of {event}", lambda: len(self.events(event)) >= number, within=within)
        return self.events(event)

    def log(self, name: str) -> Path:
        """Return the file with a command's output."""
        return self.folder / f"{name}.log"

    def state(self, name: str) -> Path:
        """Return the state folder of the processes that were started under a name."""
        return self.folder / f"state-{name}"

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(Signals.SIGCONT)
                kill(freeze_family(process.pid))
                process.wait()

    def _variables(self, name: str) -> dict[str, str]:
        own = {"TEQUIPY_WORKER__STATE_FOLDER": str(self.state(name)), "EVENTS": str(self.folder / "events")}
        return {"PATH": os.environ["PATH"]} | self.environment | own

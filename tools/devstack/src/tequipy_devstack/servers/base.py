"""What every server has in common: state beside its data, a life as our child, and ways to disturb it."""

import json
import os
import secrets
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import ClassVar, Self

import psutil

from tequipy_devstack.ports import free_port, is_free
from tequipy_devstack.processes import (
    DevstackError,
    await_end,
    end_process,
    find_process,
    freeze_family,
    signal_family,
    tied,
)

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


def package_folder(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    # Both server packages do things at import that we do not need: a lock folder, a client library.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DevstackError(f"the package {name} is not installed: run `make dev` or `uv sync`")
    return Path(spec.submodule_search_locations[0])


@dataclass(frozen=True)
class _State:
    """What is kept beside the data: the next start, and other processes, find the server by it."""

    port: int
    password: str
    pid: int = 0


class Server(ABC):
    """One server with its data, log and password in `folder`; a context manager that starts and stops it.

    An object that did not start the server may still ask for its address, as a test's process does of the run's
    shared server; it may not stop or disturb it. `durable`: survive a crash of the machine, not only of the process.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[Signals]
    """Stops it in order."""
    death_signal: ClassVar[Signals]
    """Sent by the kernel when we die."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.durable = durable
        self._state_file = self.folder / "server.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The TCP port, kept from one start to the next as long as it stays free."""
        return self._state().port

    @property
    def password(self) -> str:
        """The password: without one, any user of this machine would be the server's superuser."""
        return self._state().password

    @property
    def pid(self) -> int:
        """The pid of the server's first process."""
        return self._state().pid

    @property
    def running(self) -> bool:
        """Whether the process that we started lives (frozen counts as living)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return once it answers; end a leftover of an earlier owner of the folder first."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._state_file.exists():
            state = self._state()
            if leftover := find_process(state.pid, self.folder):
                end_process(leftover, self.stop_signal, patience=_STOP_SECONDS)
            if not is_free(state.port):
                state = replace(state, port=free_port())
        else:
            state = _State(free_port(), secrets.token_urlsafe(24))
        self._keep(state)
        self._prepare()
        self._launch()

    def stop(self) -> None:
        """Stop the server in order (a frozen one too); one that is already gone is no error."""
        if self._process is None:
            return
        if self.running:
            end_process(psutil.Process(self._process.pid), self.stop_signal, patience=_STOP_SECONDS)
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End all its processes by SIGKILL, as a crash would."""
        process = self._living()
        await_end(signal_family(process.pid, Signals.SIGKILL), timeout=_STOP_SECONDS)
        process.wait()

    def freeze(self) -> None:
        """Stop all its processes by SIGSTOP: connections stay open and nobody answers."""
        freeze_family(self._living().pid)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        signal_family(self._living().pid, Signals.SIGCONT)

    def restart(self) -> None:
        """Start it again on the same port with the same data, stopping it first if it runs."""
        self._own()
        self.stop()
        self._launch()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _state(self) -> _State:
        return _State(**json.loads(self._state_file.read_text()))

    def _keep(self, state: _State) -> None:
        draft = self._state_file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(state)))
        draft.replace(self._state_file)

    def _living(self) -> subprocess.Popen[bytes]:
        process = self._own()
        if process.poll() is not None:
            raise DevstackError(f"this {self.name} is not running")
        return process

    def _own(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DevstackError(f"this {self.name} belongs to another process: disturb a private one")
        return self._process

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own command line
                tied(self._command(), death_signal=self.death_signal, unprivileged=True),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                process_group=0,
            )
        self._keep(replace(self._state(), pid=self._process.pid))
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            status = self._process.poll()
            if status is not None or time.monotonic() > deadline:
                self.stop()
                ending = "gives no answer" if status is None else f"ended with status {status}"
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
                raise DevstackError(f"{self.name} {ending} while starting; the end of {self.log}:\n{tail}")
            time.sleep(0.02)

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder if there is none."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server serves."""

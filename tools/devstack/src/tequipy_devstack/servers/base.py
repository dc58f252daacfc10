"""The base class of servers: data folder, state, child process, and faults on request."""

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
    # Not imported, because both packages do unneeded work at import (a lock folder, a client library).
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DevstackError(f"the package {name} is not installed: run `make dev` or `uv sync`")
    return Path(spec.submodule_search_locations[0])


@dataclass(frozen=True)
class _State:
    """State stored beside the data, by which the next start and other processes find the server."""

    port: int
    password: str
    pid: int = 0


class Server(ABC):
    """One server with its data, log and password in `folder`; a context manager that starts and stops it.

    An object that did not start the server may still return its address, as test processes need it for the run's shared
    server, but it may not stop or disturb it. `durable`: survive a crash of the machine, not only of the process.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[Signals]
    """The signal of an orderly shutdown."""
    death_signal: ClassVar[Signals]
    """The signal that the kernel sends when the parent dies."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.durable = durable
        self._state_file = self.folder / "server.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The TCP port, kept from one start to the next if it is still free."""
        return self._state().port

    @property
    def password(self) -> str:
        """The password; without one, any user of this machine could be the server's superuser."""
        return self._state().password

    @property
    def pid(self) -> int:
        """The pid of the server's first process."""
        return self._state().pid

    @property
    def running(self) -> bool:
        """Whether the process that this object started is running (or frozen)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers; stops a server that an earlier owner of the folder left."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._state_file.exists():
            state = self._state()
            if leftover := find_process(state.pid, self.folder):
                end_process(leftover, self.stop_signal, timeout=_STOP_SECONDS)
            if not is_free(state.port):
                state = replace(state, port=free_port())
        else:
            state = _State(free_port(), secrets.token_urlsafe(24))
        self._keep(state)
        self._prepare()
        self._launch()

    def stop(self) -> None:
        """Stop the server in an orderly way, even a frozen one; does nothing if it has ended."""
        if self._process is None:
            return
        if self.running:
            end_process(psutil.Process(self._process.pid), self.stop_signal, timeout=_STOP_SECONDS)
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End all its processes by SIGKILL, like a crash."""
        process = self._living()
        await_end(signal_family(process.pid, Signals.SIGKILL), timeout=_STOP_SECONDS)
        process.wait()

    def freeze(self) -> None:
        """Stop all its processes by SIGSTOP: connections stay open without answers."""
        freeze_family(self._living().pid)

    def thaw(self) -> None:
        """Continue a frozen server."""
        signal_family(self._living().pid, Signals.SIGCONT)

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port with the same data."""
        self._own()
        self.stop()
        self._launch()

    def copy_to(self, folder: Path) -> Self:
        """Return a server with a copy of the data of this one, which must be stopped, and a port of its own."""
        copy = type(self)(folder, durable=self.durable)
        copy.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["cp", "--archive", self.data, copy.data], check=True)  # noqa: S603, S607 -- keeps the owners
        copy._keep(_State(free_port(), self.password))  # noqa: SLF001 -- an object of this class
        return copy

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
            self._process = subprocess.Popen(  # noqa: S603 -- our own command
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
        """Create the data folder if there is none."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the server answers."""

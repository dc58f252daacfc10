"""One server for a whole test run: started by the first process that needs it, stopped when the run ends.

The server is the child of a small separate process, the keeper, because the test process that starts it may end before
the others do. The keeper waits for the end of the run's first process, even by SIGKILL, and then stops the server.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import psutil

from tequipy_devstack.processes import DevstackError, await_end, find_process
from tequipy_devstack.servers import PostgresServer, Server, ValkeyServer

_SERVERS: dict[str, type[Server]] = {"postgres": PostgresServer, "valkey": ValkeyServer}


@dataclass(frozen=True)
class TestRun:
    """State shared by the processes of a test run: a folder, created at first use, and the pid of the first process."""

    __test__ = False  # otherwise pytest would collect a class named Test…

    folder: Path
    owner: int

    @classmethod
    def begin(cls) -> Self:
        """Start a run whose owner is this process."""
        return cls(Path(tempfile.gettempdir(), f"tequipy-tests-{uuid4().hex}"), os.getpid())

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock that one process of the run can hold at a time."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def server_folder(self, kind: str) -> Path:
        """Return the folder of the run's `postgres` or `valkey` server, which is running then."""
        folder = self.folder / kind
        with self.lock(kind):
            if not (folder / "keeper").exists():
                self._start_keeper(kind, folder)
        return folder

    def end(self) -> None:
        """Stop the run's servers and wait for their end; called by the owner."""
        for file in self.folder.glob("*/keeper"):
            if keeper := find_process(int(file.read_text()), self.folder):
                keeper.terminate()
                await_end([keeper], timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_keeper(self, kind: str, folder: Path) -> None:
        keeper = subprocess.Popen(  # noqa: S603 -- our own command
            [sys.executable, "-m", __name__, kind, str(folder), str(self.owner)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C must end the test run first, which then ends the keeper
        )
        assert keeper.stdout is not None  # noqa: S101 -- it is a pipe; for the type checker
        with keeper.stdout as output:
            first_line = output.readline()
            if first_line != "ready\n":
                raise DevstackError(f"the test run's {kind} does not start: {first_line}{output.read()}")
        (folder / "keeper").write_text(str(keeper.pid))
        keeper.returncode = 0  # prevents a warning, because the keeper outlives this process


def _keep(kind: str, folder: Path, owner: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        with contextlib.suppress(psutil.NoSuchProcess), _SERVERS[kind](folder):
            print("ready", flush=True)
            psutil.Process(owner).wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(path.is_dir() for path in folder.parent.glob("*")):
            shutil.rmtree(folder.parent, ignore_errors=True)


if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

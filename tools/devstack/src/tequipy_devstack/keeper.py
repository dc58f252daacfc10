"""One server for a whole test run: started by whichever process needs it first, ended when the run ends.

The server is the child of a small process of its own, the keeper, because the process that needs it first may end
before the others do, and the run may end in any way: the keeper waits for the end of the run's owner, SIGKILL included.
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
    """What the processes of one test run share: a folder, made on first use, and the pid of the run's owner."""

    __test__ = False  # pytest takes every Test… for tests

    folder: Path
    owner: int

    @classmethod
    def begin(cls) -> Self:
        """Name a run of which this process is the owner."""
        return cls(Path(tempfile.gettempdir(), f"tequipy-tests-{uuid4().hex}"), os.getpid())

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Let one process of the run at a time pass."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def server_folder(self, kind: str) -> Path:
        """Return the folder of the run's `postgres` or `valkey`, which runs when this returns."""
        folder = self.folder / kind
        with self.lock(kind):
            if not (folder / "keeper").exists():
                self._start_keeper(kind, folder)
        return folder

    def end(self) -> None:
        """End the run's servers and wait until nothing is left of them; called by the owner."""
        for file in self.folder.glob("*/keeper"):
            if keeper := find_process(int(file.read_text()), self.folder):
                keeper.terminate()
                await_end([keeper], timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_keeper(self, kind: str, folder: Path) -> None:
        keeper = subprocess.Popen(  # noqa: S603 -- our own command line
            [sys.executable, "-m", __name__, kind, str(folder), str(self.owner)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a Ctrl-C ends the run first, and the run ends the keeper
        )
        assert keeper.stdout is not None  # noqa: S101 -- piped above; for the type checker
        with keeper.stdout as output:
            first_line = output.readline()
            if first_line != "ready\n":
                raise DevstackError(f"the test run's {kind} does not start: {first_line}{output.read()}")
        (folder / "keeper").write_text(str(keeper.pid))
        keeper.returncode = 0  # it outlives this process: nobody here waits for it


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

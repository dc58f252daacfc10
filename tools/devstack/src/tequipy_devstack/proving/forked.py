"""Runs a command line many times at the cost of importing it once: in forks of a process that has imported it.

Importing `tequipy-api` takes more processor time than most of its commands, and the tests run it a hundred times. Each
run is a process of its own with its own environment, folder and streams, so the command cannot tell the difference,
unless it depends on variables that are read when modules are imported.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from signal import Signals
from threading import Lock

from tequipy_devstack.processes import tied
from tequipy_devstack.proving.waiting import eventually

_FLAGS = (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND)
"""How the files of standard input, output and error are opened."""


class ForkedProcess:
    """A running command, with those methods of `subprocess.Popen` that its users need."""

    def __init__(self, command: list[str], files: Path) -> None:
        self.args = command
        self._files = files
        eventually(f"{' '.join(command)} has been forked", (files / "pid").exists)
        self.pid = int((files / "pid").read_text(encoding="utf-8"))

    def poll(self) -> int | None:
        """Return the exit status, negative after a signal, or None while the command runs."""
        status = self._files / "status"
        return int(status.read_text(encoding="utf-8")) if status.exists() else None

    def wait(self, timeout: float = 60) -> int:
        """Wait for the end of the command, and return its exit status."""
        eventually(f"{' '.join(self.args)} has ended", lambda: self.poll() is not None, within=timeout)
        return int((self._files / "status").read_text(encoding="utf-8"))

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(Signals.SIGKILL)


class ForkedCommand:
    """Runs one command line; several threads may call it at the same time."""

    def __init__(self, program: str, server: "subprocess.Popen[str]") -> None:
        self._program = program
        self._server = server
        self._lock = Lock()

    def run(
        self, *arguments: str, environment: Mapping[str, str], folder: Path, stdin: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, like `subprocess.run` with captured output and `check=False`."""
        with tempfile.TemporaryDirectory() as name:
            files = Path(name)
            (files / "stdin").write_text(stdin, encoding="utf-8")
            (files / "stdout").touch()
            (files / "stderr").touch()
            streams = [files / "stdin", files / "stdout", files / "stderr"]
            process = self._fork(arguments, environment, folder, files, streams)
            return subprocess.CompletedProcess(
                process.args,
                process.wait(timeout),
                (files / "stdout").read_text(encoding="utf-8"),
                (files / "stderr").read_text(encoding="utf-8"),
            )

    def start(
        self, *arguments: str, environment: Mapping[str, str], folder: Path, log: Path, files: Path
    ) -> ForkedProcess:
        """Start the command, with its output in `log` and its state in the new folder `files`."""
        files.mkdir()
        log.touch()
        return self._fork(arguments, environment, folder, files, [Path(os.devnull), log, log])

    def _fork(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, files: Path, streams: list[Path]
    ) -> ForkedProcess:
        request = {
            "arguments": [self._program, *arguments],
            "environment": dict(environment),
            "folder": str(folder),
            "files": str(files),
            "streams": [str(each) for each in streams],
        }
        with self._lock:
            print(json.dumps(request), file=self._server.stdin, flush=True)
        return ForkedProcess([self._program, *arguments], files)


@contextmanager
def forked_command(program: str, entry_point: str, *modules: str) -> Iterator[ForkedCommand]:
    """Import an entry point such as `tequipy_api.cli:main` in a process of its own, which ends with the block.

    `modules` are imported too: those that the command imports when it needs them.
    """
    # Not -m, from which click would take the program's name.
    command = [sys.executable, "-P", __file__, entry_point, *modules]
    server = subprocess.Popen(  # noqa: S603 -- our own command line
        tied(command, death_signal=Signals.SIGKILL), stdin=subprocess.PIPE, text=True, process_group=0
    )
    try:
        yield ForkedCommand(program, server)
    finally:
        server.kill()
        server.communicate()


def _serve(entry_point: str, *modules: str) -> None:
    """Run a command for each line of the standard input, in a process whose parent waits for its status."""
    module, _, name = entry_point.partition(":")
    main = getattr(import_module(module), name)
    for each in modules:
        import_module(each)
    gc.freeze()  # otherwise each fork would look for garbage in all modules, and copy their memory thereby
    for line in sys.stdin:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if os.fork() != 0:
            continue
        request = json.loads(line)
        command = os.fork()
        if command == 0:
            _become(request)
            main()
            sys.exit()
        files = Path(request["files"])
        _write(files / "pid", command)
        _, status = os.waitpid(command, 0)
        _write(files / "status", os.waitstatus_to_exitcode(status))
        os._exit(0)


def _write(file: Path, number: int) -> None:
    """Create a file that is complete as soon as it exists."""
    draft = file.with_suffix(".draft")
    draft.write_text(str(number), encoding="utf-8")
    draft.rename(file)


def _become(request: Mapping[str, object]) -> None:
    """Give this process the arguments, environment, folder and streams of a request."""
    sys.argv = list(request["arguments"])  # type: ignore[call-overload]  # -- JSON
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]  # -- as above
    os.chdir(str(request["folder"]))
    for number, (name, flags) in enumerate(zip(request["streams"], _FLAGS, strict=True)):  # type: ignore[call-overload]  # -- as above
        file = os.open(name, flags)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- the old one may have buffered requests


if __name__ == "__main__":
    _serve(*sys.argv[1:])

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from signal import Signals
from threading import Lock

from tequipy_devstack.processes import tied
from tequipy_devstack.proving.waiting import eventually

_STREAMS = {0: ("stdin", os.O_RDONLY), 1: ("stdout", os.O_WRONLY), 2: ("stderr", os.O_WRONLY)}


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
            command = [self._program, *arguments]
            request = {
                "arguments": command,
                "environment": dict(environment),
                "folder": str(folder),
                "files": name,
            }
            with self._lock:
                print(json.dumps(request), file=self._server.stdin, flush=True)
            status = files / "status"
            eventually(f"{' '.join(command)} has ended", status.exists, within=timeout)
            return subprocess.CompletedProcess(
                command,
                int(status.read_text(encoding="utf-8")),
                (files / "stdout").read_text(encoding="utf-8"),
                (files / "stderr").read_text(encoding="utf-8"),
            )


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
        _, status = os.waitpid(command, 0)
        draft = Path(request["files"]) / "draft"
        draft.write_text(str(os.waitstatus_to_exitcode(status)), encoding="utf-8")
        draft.rename(draft.with_name("status"))
        os._exit(0)


def _become(request: Mapping[str, object]) -> None:
    """Give this process the arguments, environment, folder and streams of a request."""
    sys.argv = list(request["arguments"])  # type: ignore[call-overload]  # -- JSON
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]  # -- as above
    os.chdir(str(request["folder"]))
    for number, (name, flags) in _STREAMS.items():
        file = os.open(f"{request['files']}/{name}", flags)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- the old one may have buffered requests


if __name__ == "__main__":
    _serve(*sys.argv[1:])

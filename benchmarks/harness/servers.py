"""Server processes on one core, the cores that are left to the rest, and the CPU time of a process."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final

import httpx
import psutil

from tequipy_devstack.ports import free_port
from tequipy_devstack.processes import end_process, tied

PEERS: Final = Path(__file__).parents[1] / "peers"
_START_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Cores:
    """The core of the server under test, and those of the load generator and of the databases."""

    server: frozenset[int]
    others: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """Return the first core for the server and the other ones for the rest; the same one if there is only one."""
        first, *rest = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(rest or {first}))


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Run this process, and the processes that it starts in the block, on some cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Server:
    """One running server."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process and of its descendants, also of those that have ended."""
    process = psutil.Process(pid)
    ended = process.cpu_times()
    living = [pid, *(child.pid for child in process.children(recursive=True))]
    return float(ended.children_user + ended.children_system) + sum(_own_cpu_seconds(each) for each in living)


def _own_cpu_seconds(pid: int) -> float:
    total = 0
    for statistics in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(statistics.read_text(encoding="ascii").split()[0])  # nanoseconds; `stat` counts in 10 ms
        except OSError:  # the thread has ended
            continue
    return total / 1e9


@contextmanager
def serving(
    command: Sequence[str | Path], cores: Cores, *, folder: Path, log: Path, variables: Mapping[str, str]
) -> Iterator[Server]:
    """Run a command with `--port`, in `folder`, until the block ends; enter when its port accepts connections."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    with on_cores(cores.server), log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own command line
            tied([*command, "--port", str(port)], death_signal=Signals.SIGKILL),
            cwd=folder,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        _await_answer(process, port, log)
        yield Server(port, process.pid)
    finally:
        if process.poll() is None:
            end_process(psutil.Process(process.pid), Signals.SIGKILL, timeout=10)
        process.wait()


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a server did not start: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.05)
        else:
            return


def uvicorn_command(app: str, python: Path, *, access_log: bool = False) -> list[str | Path]:
    """Return the command of uvicorn as its documentation has it, by default without access log."""
    quiet = [] if access_log else ["--no-access-log", "--log-level", "warning"]
    return [python, "-m", "uvicorn", app, "--host", "127.0.0.1", *quiet]


def peers_python() -> Path:
    """Return the interpreter of the peers' environment; ends the program if `make bench` has not made it."""
    python = PEERS / "environment/.venv/bin/python"
    if not python.exists():
        raise SystemExit("The peers are not installed: run `make peers`.")
    return python

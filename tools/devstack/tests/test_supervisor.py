"""The supervisor with small programs in place of Tequipy's."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tequipy_devstack.processes import is_running
from tequipy_devstack.supervisor import Delays, Program, Supervisor

QUICK = Delays(grace=5, first_pause=0.05, longest_pause=0.2, healthy=60)


def python(name: str, code: str) -> Program:
    return Program(name, [sys.executable, "-c", code])


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor({**os.environ, "GREETING": "hello", "PYTHONUNBUFFERED": "1"}, delays=QUICK)


@asynccontextmanager
async def running(work: Coroutine[object, object, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine in the background, and cancel it at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


class Output:
    """The output printed so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._seen = ""

    def text(self) -> str:
        self._seen += self._capsys.readouterr().out
        return self._seen


async def eventually(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not probe():
            await asyncio.sleep(0.02)


async def test_each_line_carries_the_name_of_its_program(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output, standard error, an unfinished last line and invalid UTF-8 are printed with the prefix."""
    code = r"import os; os.write(1, b'one\n\xff\n'); os.write(2, os.environ['GREETING'].encode())"
    assert await supervisor.once(python("api", code)) == 0
    assert capsys.readouterr().out == "api     | one\napi     | \ufffd\napi     | hello\n"


async def test_an_endless_line_is_printed_in_parts(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """A line longer than the buffer neither stops the output nor is lost."""
    assert await supervisor.once(python("api", "print('x' * 3_000_000); print('after')")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count("x") for line in lines) == 3_000_000
    assert lines[-1] == "api     | after"


async def test_once_tells_the_exit_status(supervisor: Supervisor) -> None:
    """`once` returns the exit status, so that a failed command is noticed."""
    assert await supervisor.once(python("migrate", "raise SystemExit(3)")) == 3
    assert await supervisor.succeeds(python("", "pass"))
    assert not await supervisor.succeeds(python("", "raise SystemExit(1)"))
    reads_a_variable = [sys.executable, "-c", "import os; raise SystemExit(os.environ['WORD'] != 'own')"]
    assert await supervisor.succeeds(Program("", reads_a_variable, {"WORD": "own"}))


async def test_a_program_that_dies_is_started_again(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each death is printed with its status, and the pause before the next start doubles up to its limit."""
    log = tmp_path / "starts"
    dying = python("worker", f"open({str(log)!r}, 'a').write('x'); raise SystemExit(7)")
    async with running(supervisor.keep(dying)):
        await eventually(lambda: log.exists() and len(log.read_text()) >= 5)
    deaths = [line for line in capsys.readouterr().out.splitlines() if "status 7" in line]
    pauses = [line.split()[-2] for line in deaths]
    assert pauses[:4] == ["0.05", "0.1", "0.2", "0.2"]


FAMILY = """
import os, signal, time
is_ready, set_ready = os.pipe()
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(set_ready, b".")
    time.sleep(600)
os.read(is_ready, 1)
print(child, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("death", ["cancelled", "killed"])
async def test_nothing_that_a_program_started_outlives_it(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], death: str
) -> None:
    """A child that ignores SIGTERM ends with its parent, whether that is stopped or dies."""
    async with running(supervisor.keep(python("worker", FAMILY))):
        output = Output(capsys)
        await eventually(lambda: "worker" in output.text())
        child = psutil.Process(int(output.text().split()[2]))
        parent = child.parent()
        assert parent is not None
        if death == "killed":
            parent.kill()
            await eventually(lambda: not is_running(child))
    assert not is_running(child)
    assert not is_running(parent)


async def test_a_second_cancellation_waits_for_nothing(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends slowly is killed at the second cancellation, and asyncio knows that it has ended."""
    start, started = supervisor._start, list[asyncio.subprocess.Process]()

    async def note(program: Program) -> asyncio.subprocess.Process:
        started.append(await start(program))
        return started[-1]

    monkeypatch.setattr(supervisor, "_start", note)
    stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: print('later')); print(os.getpid())\n"
    supervisor._delays = Delays(grace=60)
    output = Output(capsys)
    task = asyncio.ensure_future(supervisor.keep(python("api", stubborn + "while True: time.sleep(1)")))
    await eventually(lambda: "api" in output.text())
    program = psutil.Process(int(output.text().split()[2]))
    task.cancel()
    await eventually(lambda: "later" in output.text())
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([task])
    assert not is_running(program)
    assert [process.returncode for process in started] == [-signal.SIGKILL]


async def test_a_changed_file_starts_everything_again(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saving a source file restarts a running program; Python's bytecode files do not."""
    sources, log = tmp_path / "src", tmp_path / "starts"
    (sources / "__pycache__").mkdir(parents=True)
    program = python("api", f"open({str(log)!r}, 'a').write('x'); import time; time.sleep(600)")
    async with running(supervisor.keep(program)), running(supervisor.reload(sources)):
        await eventually(lambda: log.exists() and log.read_text() == "x")

        def changed() -> bool:
            # Repeated, because the start of the watch is not signalled.
            (sources / "__pycache__" / "app.pyc").write_bytes(os.urandom(8))
            (sources / "app.py").write_bytes(os.urandom(8))
            return len(log.read_text()) > 1

        await eventually(changed)
    output = capsys.readouterr().out
    assert "app.py changed: everything starts again" in output
    assert "app.pyc" not in output
    assert "ended with status" not in output


async def test_readiness_is_told_once_it_is_there(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines are printed when `ready` first returns True."""
    answers = iter([False, True])

    async def ready() -> bool:
        assert capsys.readouterr().out == ""
        return next(answers)

    await supervisor.announce(ready, ["Tequipy is ready."])
    assert capsys.readouterr().out == "stack   | Tequipy is ready.\n"

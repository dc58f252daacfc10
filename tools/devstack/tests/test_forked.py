"""Commands that run in forks behave as if a shell had started them."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import Signals

import pytest

from tequipy_devstack.proving.forked import ForkedCommand, forked_command
from tequipy_devstack.proving.waiting import eventually

PROGRAM = """
import json, os, sys, time

def main():
    if sys.argv[1:] == ["fail"]:
        raise RuntimeError("as asked")
    if sys.argv[1:] == ["die"]:
        os.kill(os.getpid(), 9)
    if sys.argv[1:] == ["wait"]:
        print(os.getpid(), flush=True)
        time.sleep(60)
    print(json.dumps([sys.argv, dict(os.environ), os.getcwd(), sys.stdin.read(), os.getpid()]))
    print("warning", file=sys.stderr)
    sys.exit(78)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommand]:
    folder = tmp_path_factory.mktemp("program")
    (folder / "forked_example.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with forked_command("example", "forked_example:main") as made:
            yield made


def test_a_run_has_its_own_arguments_environment_folder_and_streams(command: ForkedCommand, tmp_path: Path) -> None:
    """A run gets what it was given and nothing else, and its status and both streams are returned."""
    result = command.run("a", "b", environment={"NAME": "ada"}, folder=tmp_path, stdin="text")
    *given, pid = json.loads(result.stdout)
    assert given == [["example", "a", "b"], {"NAME": "ada"}, str(tmp_path), "text"]
    assert (result.returncode, result.stderr) == (os.EX_CONFIG, "warning\n")
    assert pid != os.getpid()


@pytest.mark.parametrize(("argument", "status", "message"), [("fail", 1, "RuntimeError: as asked"), ("die", -9, "")])
def test_an_unhandled_error_and_a_signal_end_the_run(
    command: ForkedCommand, tmp_path: Path, argument: str, status: int, message: str
) -> None:
    """A traceback is on the standard error, and the death by a signal is a negative status."""
    result = command.run(argument, environment={}, folder=tmp_path)
    assert result.returncode == status
    assert message in result.stderr


def test_runs_are_concurrent_processes(command: ForkedCommand, tmp_path: Path) -> None:
    """Several threads get the output of their own run."""
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda n: command.run(str(n), environment={}, folder=tmp_path), range(8)))
    outputs = [json.loads(result.stdout) for result in results]
    assert [output[0] for output in outputs] == [["example", str(number)] for number in range(8)]
    assert len({output[4] for output in outputs}) == 8


def test_a_started_command_runs_until_a_signal(command: ForkedCommand, tmp_path: Path) -> None:
    """`start` returns while the command runs, whose output is in the log, and `wait` returns its status."""
    log = tmp_path / "log"
    running = command.start("wait", environment={}, folder=tmp_path, log=log, files=tmp_path / "files")
    eventually("it has started", lambda: log.read_text() == f"{running.pid}\n")
    assert running.poll() is None
    running.send_signal(Signals.SIGTERM)
    assert running.wait() == running.poll() == -Signals.SIGTERM
    running.kill()  # does nothing, because the command has ended

"""The state folder belongs to one process of each kind, whose files survive another one."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tequipy_devstack.proving import eventually
from tequipy_worker.state import UnusableFolderError, claimed_folder, is_locked

from .shell import Shell


def files(folder: Path) -> set[str]:
    """Return the names of the metric files of a worker."""
    return {file.name for file in folder.rglob("*.db")}


def test_a_second_worker_is_refused_and_deletes_nothing(shell: Shell) -> None:
    """A second worker with the same folder ends with one line, and the metric files of the first survive."""
    shell.start("worker", "run")
    eventually("the worker has metric files", lambda: files(shell.state("worker")))
    shell.await_health("worker", 0, "run")
    before = files(shell.state("worker"))
    second = shell.run("worker", "run")
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert "is used by another process" in line
    assert "TEQUIPY_WORKER__STATE_FOLDER" in line
    assert before <= files(shell.state("worker"))
    assert shell.health("worker", "run") == 0


@pytest.mark.parametrize("command", ["beat", "relay"])
def test_a_second_process_is_refused(command: str, shell: Shell) -> None:
    """A second process of any kind is refused, and after `kill -9` of the first it may start at once."""
    first = shell.start("worker", command)
    shell.await_health("worker", 0, command)
    second = shell.run("worker", command)
    assert second.returncode == 1
    assert f"is used by another process ({first.pid})" in second.stderr
    first.kill()
    first.wait()
    assert shell.health("worker", command) == 1
    shell.start("worker", command)
    shell.await_health("worker", 0, command)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        stack.enter_context(claimed_folder(tmp_path / "state", "run"))
        yield stack


def test_processes_of_different_kinds_share_a_state_folder(holder: ExitStack, tmp_path: Path) -> None:
    """Each kind has its own folder and lock, which is free again when its process ends."""
    folder = tmp_path / "state"
    with claimed_folder(folder, "beat") as beat, claimed_folder(folder, "relay") as relay:
        assert is_locked(beat / "lock")
        assert is_locked(relay / "lock")
        with pytest.raises(UnusableFolderError, match="TEQUIPY_WORKER__STATE_FOLDER"), claimed_folder(folder, "run"):
            pass
    assert not is_locked(beat / "lock")
    holder.close()
    with claimed_folder(folder, "run") as run:
        assert (run / "lock").read_text() == f"{os.getpid()}\n"

"""`tequipy-worker health`: the processes of a state folder, by their heartbeats."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tequipy_worker.heartbeat import Heartbeat
from tequipy_worker.probe import ALIVE_WITHIN, find_faults, state_folder
from tequipy_worker.state import children_folder, claimed_folder, heartbeat_file

from .shell import Shell


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that replaces the environment and `.env`."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("TEQUIPY_WORKER"):
            monkeypatch.delenv(name)

    def set_variables(env_file: str | bytes = "", **variables: str) -> None:
        content = env_file.encode() if isinstance(env_file, str) else env_file
        (tmp_path / ".env").write_bytes(content)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def test_the_heartbeat_of_a_process_decides(tmp_path: Path) -> None:
    """A process without a fresh heartbeat is a fault, also with one from the future; so is one that does not run."""
    assert list(find_faults(tmp_path)) == [f"no process runs in {tmp_path}"]
    with claimed_folder(tmp_path, "relay") as folder:
        assert list(find_faults(tmp_path)) == [f"relay: has not touched {folder}/heartbeat lately"]
        heartbeat = Heartbeat(heartbeat_file(folder), "broker")
        assert list(find_faults(tmp_path)) == list(find_faults(tmp_path, ["relay"])) == []
        assert list(find_faults(tmp_path, ["beat"])) == [f"beat: does not run in {tmp_path}"]
        for seconds in (-ALIVE_WITHIN - 1, ALIVE_WITHIN + 1, 1e8):
            moment = time.time() + seconds
            os.utime(heartbeat.file, (moment, moment))
            assert len(list(find_faults(tmp_path))) == 1, seconds
    heartbeat.close()
    assert list(find_faults(tmp_path)) == [f"no process runs in {tmp_path}"]


def test_a_process_that_waits_for_a_service_is_alive_but_not_ready(tmp_path: Path) -> None:
    """What a process waits for is a fault with `--ready` alone, until the service has answered."""
    with claimed_folder(tmp_path, "relay") as folder:
        heartbeat = Heartbeat(heartbeat_file(folder), "broker", "database")
        heartbeat.answered("database")
        heartbeat.beat()
        assert list(find_faults(tmp_path)) == []
        assert list(find_faults(tmp_path, ready=True)) == ["relay: waits for broker"]
        heartbeat.answered("broker")
        heartbeat.beat()
        assert list(find_faults(tmp_path, ready=True)) == []
        heartbeat.failed("database")
        heartbeat.beat()
        assert list(find_faults(tmp_path, ready=True)) == ["relay: waits for database"]
        heartbeat.close()


def test_one_working_child_is_enough(tmp_path: Path) -> None:
    """A worker is faulty when all living children are late; dead ones are not counted while another is started."""
    late = time.time() - ALIVE_WITHIN - 1
    with claimed_folder(tmp_path, "run") as folder:
        parent = Heartbeat(heartbeat_file(folder))
        children = children_folder(folder)
        children.mkdir()
        assert list(find_faults(tmp_path)) == [], "the first child is being started"
        assert list(find_faults(tmp_path, ready=True)) == ["run: its child processes: none has started"]
        first, second = (Heartbeat(children / name, "database") for name in ("1", "2"))
        first.lock()
        second.lock()
        assert list(find_faults(tmp_path)) == []
        assert list(find_faults(tmp_path, ready=True)) == ["run: its child processes: waits for database"]
        os.utime(first.file, (late, late))
        assert list(find_faults(tmp_path)) == []
        os.utime(second.file, (late, late))
        assert len(list(find_faults(tmp_path))) == 1
        second.answered("database")
        second.beat()
        assert list(find_faults(tmp_path, ready=True)) == []
        os.close(second._opened)
        assert len(list(find_faults(tmp_path))) == 1, "the living child is late; the dead one is not counted"
        os.close(first._opened)
        assert list(find_faults(tmp_path)) == [], "both have died a moment ago"
        for path in (first.file, second.file, children):
            os.utime(path, (late, late))
        assert len(list(find_faults(tmp_path))) == 1, "no child is started any more"
        parent.close()


@pytest.mark.parametrize(
    ("env_file", "variables", "folder"),
    [
        ("", {}, None),
        ("", {"TEQUIPY_WORKER__STATE_FOLDER": "/a"}, "/a"),
        ("", {"tequipy_worker__state_folder": "/a"}, "/a"),
        ("", {"TEQUIPY_WORKER": '{"state_folder": "/a"}'}, "/a"),
        ("TEQUIPY_WORKER__STATE_FOLDER=/b", {}, "/b"),
        ("\ufeffTEQUIPY_WORKER__STATE_FOLDER='/b b' # comment", {}, "/b b"),
        ("TEQUIPY_WORKER__STATE_FOLDER=/b", {"TEQUIPY_WORKER__STATE_FOLDER": "/a"}, "/a"),
        ("TEQUIPY_WORKER__STATE_FOLDER=/b", {"TEQUIPY_WORKER__STATE_FOLDER": ""}, "/b"),
        ("", {"TEQUIPY_WORKER": '{"concurrency": 1}'}, None),
    ],
)
def test_the_state_folder_is_that_of_the_settings(
    env_file: str, variables: dict[str, str], folder: str | None, away: Callable[..., None]
) -> None:
    """The probe reads the setting from the same places, and in the same forms, as the settings model."""
    from tequipy_worker.settings import WorkerSettings  # noqa: PLC0415 -- reads the replaced environment

    required = {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": "postgresql+asyncpg://a@b/c",
        "TEQUIPY_CACHE__URL": "redis://a/0",
        "TEQUIPY_CELERY__BROKER_URL": "redis://a/1",
    }
    away(env_file, **(required | variables))
    assert state_folder() == WorkerSettings().worker.state_folder
    assert folder is None or state_folder() == Path(folder)


@pytest.mark.parametrize(
    ("env_file", "variables", "line"),
    [
        (b"TEQUIPY_APP_NAME=caf\xe9", {}, ".env: should be UTF-8 text"),
        ("", {"TEQUIPY_WORKER": "{hunter2"}, "TEQUIPY_WORKER: should be a JSON object"),
        ("TEQUIPY_WORKER=[]", {}, "TEQUIPY_WORKER: should be a JSON object"),
        ("", {"TEQUIPY_WORKER": '{"state_folder": 7}'}, "TEQUIPY_WORKER__STATE_FOLDER: should be a path"),
    ],
)
def test_a_state_folder_that_cannot_be_determined_is_one_line(
    env_file: str | bytes,
    variables: dict[str, str],
    line: str,
    away: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The probe ends with 78 and one line without a value; it does not check other settings."""
    away(env_file, **variables)
    with pytest.raises(SystemExit) as ended:
        state_folder()
    assert ended.value.code == 78
    assert capsys.readouterr().err == f"{line}\n"


def test_the_probe_costs_little(shell: Shell) -> None:
    """The whole probe takes less than 150 ms of processor time, with a `.env` too, and imports no large library."""
    (shell.folder / ".env").write_text("TEQUIPY_APP_NAME=shop\n")

    costs = shell.health_costs("worker", "--ready")
    print(f"\nhealth: {[round(1000 * seconds) for seconds in costs]} ms of processor time")
    assert costs[0] < 0.15
    code = (
        "import sys; sys.argv = ['', 'health']; import tequipy_worker.__main__ as entry\n"
        "try: entry.main()\nexcept SystemExit: print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=shell.folder)
    assert not {"pydantic", "celery", "click", "asyncio", "prometheus_client"} & set(result.stdout.split())


def test_the_help_of_the_probe_is_that_of_the_command_line(shell: Shell) -> None:
    """`--help` and a wrong argument are handled like those of other commands."""
    assert "--ready" in shell.run("worker", "health", "--help").stdout
    wrong = shell.run("worker", "health", "everything")
    assert wrong.returncode == 2
    assert "'run', 'beat', 'relay'" in wrong.stderr


@pytest.mark.prove
@pytest.mark.parametrize("command", [pytest.param("run", marks=pytest.mark.quick), "beat", "relay"])
def test_a_process_is_healthy_until_it_ends(command: str, shell: Shell) -> None:
    """Each process becomes healthy; when it has ended, the probe fails at once."""
    process = shell.start("worker", command)
    shell.await_health("worker", 0, command)
    assert shell.health("worker") == 0
    shell.await_health("worker", 0, "--ready")
    process.terminate()
    process.wait(30)
    assert shell.health("worker") == shell.health("worker", command) == 1

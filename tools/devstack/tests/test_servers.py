"""Both servers can be started, stopped, killed, frozen and restarted."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tequipy_devstack.processes import DevstackError, await_end, is_running
from tequipy_devstack.servers import PostgresServer, Server, ValkeyServer

KINDS = [PostgresServer, ValkeyServer]


def remember(server: Server, value: str) -> None:
    """Store a value in either server."""
    if isinstance(server, PostgresServer):
        server.execute(f"CREATE TABLE memory AS SELECT '{value}' AS value")
    elif isinstance(server, ValkeyServer):
        server._run(f"set memory {value}\n")


def recall(server: Server) -> str:
    """Read the value stored by `remember`."""
    if isinstance(server, PostgresServer):
        return server.execute("SELECT value FROM memory").strip()
    assert isinstance(server, ValkeyServer)
    return server._run("get memory\n").strip()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with request.param(tmp_path / "server") as server:
        yield server


def test_committed_data_survives_every_end(server: Server) -> None:
    """A kill, an orderly stop and a restart keep the data and the address."""
    address = (server.port, server.password)
    remember(server, "this")
    server.kill()
    assert not server.running
    server.restart()
    assert recall(server) == "this"
    server.stop()
    server.start()
    assert recall(server) == "this"
    assert (server.port, server.password) == address


def test_a_copy_of_a_stopped_server_runs_beside_it(server: Server, tmp_path: Path) -> None:
    """A copy has the data and the password of its original, but its own port and its own changes."""
    remember(server, "kept")
    server.stop()
    with server.copy_to(tmp_path / "copy") as copy:
        server.start()
        assert recall(copy) == recall(server) == "kept"
        assert copy.port != server.port
        assert copy.password == server.password


def test_a_frozen_server_can_be_continued(server: Server) -> None:
    """Freezing stops every process of the server, thawing continues them; a frozen server can be stopped."""
    remember(server, "this")
    server.freeze()
    leader = psutil.Process(server.pid)
    alive = [process for process in [leader, *leader.children(recursive=True)] if is_running(process)]
    assert {process.status() for process in alive} == {psutil.STATUS_STOPPED}
    server.thaw()
    assert recall(server) == "this"
    server.freeze()
    server.stop()
    assert await_end(alive, timeout=0) == []


def test_a_leftover_on_the_folder_is_ended_first(server: Server) -> None:
    """A second owner of the folder ends the server that the first one left, and takes over its data and port."""
    remember(server, "this")
    leftover, port = psutil.Process(server.pid), server.port
    with type(server)(server.folder) as successor:
        assert not is_running(leftover)
        assert recall(successor) == "this"
        assert successor.port == port


def test_a_port_that_was_taken_meanwhile_is_left_alone(private_redis: ValkeyServer, tmp_path: Path) -> None:
    """A server whose port is taken starts on another one."""
    stopped = ValkeyServer(tmp_path)
    with stopped:
        pass
    stopped._keep(replace(stopped._state(), port=private_redis.port))
    with stopped:
        assert stopped.port != private_redis.port
        assert stopped._answers()


def test_other_users_cannot_connect(server: Server) -> None:
    """The server refuses clients without password, and files with the password are readable by its owner only."""
    server._keep(replace(server._state(), password="wrong"))
    if isinstance(server, PostgresServer):
        with pytest.raises(DevstackError, match="password authentication failed"):
            server.execute("SELECT 1")
    elif isinstance(server, ValkeyServer):
        assert "NOAUTH" in server._run("get memory\n")
    secret = [file for file in server.folder.iterdir() if file.is_file() and file.name != "log"]
    assert {file.stat().st_mode & 0o777 for file in secret} == {0o600}
    assert "wrong" not in str(psutil.Process(server.pid).cmdline())


def test_only_its_owner_may_disturb_it(server: Server) -> None:
    """An object that did not start the server returns its address, and refuses to stop or disturb it."""
    guest = type(server)(server.folder)
    assert (guest.port, guest.pid) == (server.port, server.pid)
    for disturb in (guest.freeze, guest.kill, guest.restart):
        with pytest.raises(DevstackError, match="disturb a private one"):
            disturb()
    guest.stop()
    assert server.running


ORPHAN = """
import os, signal, sys
from pathlib import Path
from tequipy_devstack.servers import PostgresServer, ValkeyServer
server = {kind}(Path(sys.argv[1]))
server.start()
{before_the_end}
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before_the_end", ["pass", "server.freeze()"], ids=["running", "frozen"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_server_dies_with_its_owner(kind: type[Server], before_the_end: str, tmp_path: Path) -> None:
    """`kill -9` of the process that started a server ends the server, even a frozen one."""
    code = ORPHAN.format(kind=kind.__name__, before_the_end=before_the_end)
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    deadline = time.monotonic() + 20
    while left := [process for process in psutil.process_iter() if str(tmp_path) in command_line(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if is_running(process) else ""
    except psutil.Error:
        return ""


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """Data of another major version is refused with PostgreSQL's own message."""
    with PostgresServer(tmp_path) as server:
        pass
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(DevstackError, match=r"ended with status 1 while starting.*\n.*FATAL"):
        server.start()
    assert not server.running


def test_an_emptied_valkey_is_empty(private_redis: ValkeyServer) -> None:
    """A restart with `empty` loses all data, like a cache without persistence."""
    remember(private_redis, "this")
    private_redis.restart(empty=True)
    assert recall(private_redis) == ""


def test_a_killed_postgres_leaves_no_shared_memory(
    private_postgres: PostgresServer, shared_memory: Callable[[], set[str]]
) -> None:
    """The shared memory segment that would survive SIGKILL is removed."""
    key = (private_postgres.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert key in shared_memory()
    private_postgres.kill()
    assert key not in shared_memory()


@pytest.fixture
def shared_memory() -> Callable[[], set[str]]:
    def ids() -> set[str]:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        return {line.split()[1] for line in lines}

    return ids

"""`tequipy-worker health` while real processes hang, and while their servers do."""

import time
from collections.abc import Callable
from signal import Signals

import psutil
import pytest

from tequipy_devstack.proving import eventually
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_worker.probe import ALIVE_WITHIN
from tequipy_worker.state import children_folder, heartbeat_file

from .shell import Shell

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]


def freeze_parent(worker: psutil.Process) -> Callable[[], None]:
    worker.suspend()
    return worker.resume


def freeze_children(worker: psutil.Process) -> Callable[[], None]:
    children = worker.children()
    for child in children:
        child.suspend()

    def resume() -> None:
        for child in children:
            child.resume()

    return resume


def hang_main_thread(worker: psutil.Process) -> Callable[[], None]:
    worker.send_signal(Signals.SIGUSR2)
    return lambda: None


@pytest.mark.parametrize("hang", [freeze_parent, freeze_children, hang_main_thread])
def test_a_worker_that_stands_still_is_red(hang: Callable[[psutil.Process], Callable[[], None]], shell: Shell) -> None:
    """A worker whose parent or children are stopped, or whose main thread hangs, is red; green when they continue."""
    process = shell.start("worker", "run")
    shell.await_health("worker", 0, "run", "--ready")
    resume = hang(psutil.Process(process.pid))
    shell.await_health("worker", 1, "run", within=90)
    resume()
    if hang is not hang_main_thread:
        shell.await_health("worker", 0, "run")


async def test_a_worker_whose_loops_are_blocked_is_red(shell: Shell) -> None:
    """A task that blocks the event loop of the only child makes the worker red."""
    shell.start("relay", "relay")
    shell.start("worker", "run", "--concurrency", "1")
    await shell.add("test.block", seconds=3600)
    shell.await_events("started", 1)
    assert shell.health("worker", "run") == 0
    shell.await_health("worker", 1, "run", within=90)


def test_killed_children_are_not_counted(shell: Shell) -> None:
    """While killed children are replaced, the worker is green."""
    process = psutil.Process(shell.start("worker", "run").pid)
    shell.await_health("worker", 0, "run", "--ready")
    killed = process.children()
    for child in killed:
        child.kill()

    def replaced() -> bool:
        assert shell.health("worker", "run") == 0
        return not set(killed) & set(process.children()) and shell.health("worker", "run", "--ready") == 0

    eventually("the children are replaced", replaced, every=0.5)


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_servers_that_are_away_make_no_process_red(
    fault: str, private_shell: Shell, private_postgres: PostgresServer, private_redis: ValkeyServer
) -> None:
    """While broker and database hang or are away, worker, beat and relay are green, but not ready."""
    shell = private_shell
    for kind in ("run", "beat", "relay"):
        shell.start("all", kind)
        shell.await_health("all", 0, kind)
    shell.await_health("all", 0, "--ready")
    costs = {"idle": shell.health_costs("all")}
    for server in (private_postgres, private_redis):
        getattr(server, fault)()
    began = time.time()
    for kind in ("run", "beat", "relay"):
        shell.await_health("all", 1, kind, "--ready", within=90)

    def touched() -> bool:
        assert shell.health("all") == shell.health("all", "run", "beat", "relay") == 0
        state = shell.state("all")
        files = [heartbeat_file(state / kind) for kind in ("run", "beat", "relay")]
        files += children_folder(state / "run").iterdir()
        return all(file.stat().st_mtime > began + ALIVE_WITHIN + 10 for file in files)

    eventually("all have touched their files long after", touched, within=120)
    costs[f"broker and database: {fault}"] = shell.health_costs("all")
    for state, seconds in costs.items():
        print(f"\nhealth, {state}: {[round(1000 * each) for each in seconds]} ms of processor time")
    for server in (private_postgres, private_redis):
        server.thaw() if fault == "freeze" else server.restart()
    shell.await_health("all", 0, "--ready", within=120)

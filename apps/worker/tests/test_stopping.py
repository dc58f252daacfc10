"""How a worker stops: short tasks finish, long ones are handed back, and the process ends while its servers hang."""

import subprocess
import time
from pathlib import Path
from signal import Signals

import pytest

from tequipy_devstack.processes import await_end, family
from tequipy_devstack.proving import eventually
from tequipy_devstack.servers import PostgresServer, Server, ValkeyServer

from .shell import Shell

PROMISED = 25.0
"""Seconds in which a worker has ended, with the default settings."""

pytestmark = pytest.mark.timeout(300)
QUICK = {("idle", "broker"), ("long", "broker and database")}


def stop(process: "subprocess.Popen[bytes]", *signals: Signals, log: Path | None = None) -> float:
    """Send the signals, wait until the worker and its children have ended, and return the seconds."""
    members, began = family(process.pid), time.monotonic()
    for number in signals:
        process.send_signal(number)
        if log is not None:  # two signals of one kind are one if the process has not handled the first
            eventually("the signal is handled", lambda: "worker_stopping" in log.read_text(encoding="utf-8"))
    eventually("the worker has ended", lambda: process.poll() is not None, within=PROMISED)
    seconds = time.monotonic() - began
    assert await_end(members, timeout=2) == []
    return seconds


async def started(shell: Shell, seconds: float | None) -> "subprocess.Popen[bytes]":
    """Start a worker, and a task of that many seconds; return the worker when it runs it."""
    shell.start("relay", "relay")
    worker = shell.start("first", "run", "--concurrency", "1")
    await shell.add("test.sleep", seconds=0)
    shell.await_events("finished", 1)
    if seconds is not None:
        await shell.add("test.sleep", seconds=seconds)
        shell.await_events("started", 2)
    return worker


async def test_an_idle_worker_stops(shell: Shell) -> None:
    """An idle worker ends with status 0."""
    worker = await started(shell, None)
    stop(worker, Signals.SIGTERM)
    assert worker.returncode == 0


@pytest.mark.parametrize("name", ["run", "beat", "relay"])
def test_each_process_logs_its_start_and_its_stop(shell: Shell, name: str) -> None:
    """An operator sees from the log of a process, also of an idle one, that it has begun to work, and that it ended."""
    events = {"run": "worker", "beat": "scheduler", "relay": "relay"}
    process = shell.start(name, name)
    log = shell.log(name)
    eventually("its start is logged", lambda: f"{events[name]}_started" in log.read_text(encoding="utf-8"))
    shell.await_health(name, 0, "--ready")
    stop(process, Signals.SIGTERM)
    assert f"{events[name]}_stopped" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([Signals.SIGTERM] * 2, id="SIGTERM twice", marks=pytest.mark.prove),
        pytest.param([Signals.SIGINT] * 2, id="SIGINT twice", marks=pytest.mark.prove),
        pytest.param([Signals.SIGQUIT], id="SIGQUIT"),
    ],
)
async def test_a_hard_stop_hands_tasks_back_at_once(signals: list[Signals], shell: Shell) -> None:
    """At SIGQUIT, or a second SIGTERM or SIGINT, a long task is handed back at once, and another worker starts it."""
    worker = await started(shell, 3600)
    second = shell.start("second", "run", "--concurrency", "1")
    shell.await_health("second", 0, "run", "--ready")
    seconds = stop(worker, *signals, log=shell.log("first"))
    elsewhere = shell.await_events("started", 3)[-1]
    assert elsewhere["parent"] == second.pid
    assert elsewhere["id"] == shell.events("started")[1]["id"]
    print(f"\n{signals}: {seconds:.1f} s")


@pytest.mark.prove
@pytest.mark.parametrize(
    ("seconds", "finished"),
    [pytest.param(5, True, id="short", marks=pytest.mark.quick), pytest.param(60, False, id="long")],
)
async def test_a_stopping_worker_finishes_short_tasks_and_hands_long_ones_back(
    seconds: float, finished: bool, shell: Shell
) -> None:
    """A task of 5 s finishes before its worker ends; one of 60 s is started by another worker at once."""
    worker = await started(shell, seconds)
    second = shell.start("second", "run", "--concurrency", "1")
    shell.await_health("second", 0, "run", "--ready")
    took = stop(worker, Signals.SIGTERM)
    assert worker.returncode == 0
    if finished:
        assert len(shell.events("finished")) == 2
        await shell.add("test.sleep", seconds=0)
        shell.await_events("finished", 3)
        assert len(shell.events("started")) == 3, "the finished task is not started again"
    else:
        assert shell.await_events("started", 3, within=5)[-1]["parent"] == second.pid
    print(f"\n{seconds:g} s task: {took:.1f} s")


@pytest.mark.prove
@pytest.mark.parametrize(
    ("seconds", "frozen"),
    [
        pytest.param(seconds, frozen, id=f"{name}-{frozen}", marks=marks)
        for name, seconds in (("idle", None), ("short", 5), ("long", 60))
        for frozen in ("broker", "database", "broker and database")
        for marks in [[pytest.mark.quick] if (name, frozen) in QUICK else []]
    ],
)
async def test_a_worker_stops_while_its_servers_hang(
    seconds: float | None,
    frozen: str,
    private_shell: Shell,
    private_postgres: PostgresServer,
    private_redis: ValkeyServer,
) -> None:
    """While broker or database are frozen, a worker ends in the promised time, and a short task is finished."""
    servers: dict[str, Server] = {"broker": private_redis, "database": private_postgres}
    worker = await started(private_shell, seconds)
    for name, server in servers.items():
        if name in frozen:
            server.freeze()
    took = stop(worker, Signals.SIGTERM)
    print(f"\n{frozen} frozen, task of {seconds} s: {took:.1f} s, status {worker.returncode}")
    if seconds == 5:
        assert len(private_shell.events("finished")) == 2


@pytest.mark.prove
async def test_a_message_that_a_stopped_worker_held_is_handled_again(
    private_shell: Shell, private_postgres: PostgresServer
) -> None:
    """A long task that is handed back while the database is frozen is started again when it continues."""
    worker = await started(private_shell, 60)
    private_postgres.freeze()
    stop(worker, Signals.SIGTERM)
    private_postgres.thaw()
    second = private_shell.start("second", "run")
    assert private_shell.await_events("started", 3)[-1]["parent"] == second.pid


@pytest.mark.prove
@pytest.mark.parametrize("frozen", ["broker", pytest.param("database", marks=pytest.mark.quick)])
async def test_a_relay_stops_while_its_servers_hang(
    frozen: str, private_shell: Shell, private_postgres: PostgresServer, private_redis: ValkeyServer
) -> None:
    """While broker or database are frozen and messages wait, a relay ends in the promised time."""
    relay = private_shell.start("relay", "relay")
    private_shell.await_health("relay", 0, "relay", "--ready")
    server: Server = private_redis if frozen == "broker" else private_postgres
    if frozen == "broker":
        server.freeze()
        await private_shell.add("test.sleep", seconds=0)
    else:
        await private_shell.add("test.sleep", seconds=0)
        server.freeze()
    took = stop(relay, Signals.SIGTERM)
    print(f"\nrelay, {frozen} frozen: {took:.1f} s, status {relay.returncode}")


@pytest.mark.prove
def test_a_scheduler_stops_while_the_database_hangs(private_shell: Shell, private_postgres: PostgresServer) -> None:
    """While the database is frozen, a scheduler ends in the promised time."""
    beat = private_shell.start("beat", "beat")
    private_shell.await_health("beat", 0, "beat", "--ready")
    private_postgres.freeze()
    private_shell.await_health("beat", 1, "beat", "--ready")  # by now it waits for an answer
    took = stop(beat, Signals.SIGTERM)
    print(f"\nbeat, database frozen: {took:.1f} s, status {beat.returncode}")

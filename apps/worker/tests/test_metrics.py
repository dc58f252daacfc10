"""Metrics of the worker's processes as operators scrape them, with real processes, a real broker and kill -9."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import httpx
import psutil
import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from tequipy_devstack.processes import freeze_family, kill
from tequipy_devstack.proving import fetch
from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import uuid7
from tequipy_platform.settings import load_settings
from tequipy_worker.settings import WorkerSettings
from tequipy_worker.worker import create_worker

PURGE = "platform.purge_messages"


@dataclass
class Programs:
    """Starts `tequipy-worker` commands and reads their logs and metrics."""

    environment: dict[str, str]
    folder: Path
    free_port: Callable[[], int]
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = field(default_factory=dict)

    def start(self, command: str, port: int | None = None) -> subprocess.Popen[bytes]:
        port = port or self.free_port()
        with (self.folder / f"{command}.log").open("ab") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("tequipy-worker"), command],
                cwd=self.folder,
                env=self.environment | {"TEQUIPY_OBSERVABILITY__METRICS_PORT": str(port)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.running[command] = process, port
        return process

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text()

    def value(self, command: str, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and at least these labels, or 0."""
        try:
            text = fetch(f"http://127.0.0.1:{self.running[command][1]}/metrics").text
        except httpx.ConnectError:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def until(self, probe: Callable[[], bool], command: str = "run") -> None:
        deadline = time.monotonic() + 40
        while not probe():
            assert time.monotonic() < deadline, self.log(command)
            time.sleep(0.2)  # each scrape takes time from the process that the test waits for

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.running["run"][0].pid).children()

    def stop(self) -> None:
        for process, _ in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in self.running.values():
            process.wait(20)


@pytest.fixture
def programs(
    environment: dict[str, str], redis_url: str, redis_prefix: str, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Programs]:
    environment |= {
        "TEQUIPY_CACHE__PREFIX": redis_prefix,
        "TEQUIPY_CELERY__BROKER_URL": redis_url,
        "TEQUIPY_CELERY__SOFT_SHUTDOWN_TIMEOUT": "1",
        "TEQUIPY_WORKER__STATE_FOLDER": str(tmp_path / "state"),
        "TEQUIPY_WORKER__CONCURRENCY": "2",
    }
    running = Programs(environment, tmp_path, free_port)
    yield running
    for process, _ in running.running.values():
        if process.poll() is None:
            kill(freeze_family(process.pid))
            process.wait()


@pytest.fixture
def celery(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Celery]:
    """Return the worker's app in this process, for sending messages."""
    monkeypatch.chdir(tmp_path)
    for name, value in programs.environment.items():
        monkeypatch.setenv(name, value)
    app = create_worker(load_settings(WorkerSettings))
    yield app
    app.close()


@pytest.fixture
def send(celery: Celery, postgres_server: PostgresServer, database_url: str) -> Callable[..., None]:
    """Return a function that adds a row to the outbox and publishes its message."""
    name = database_url.rpartition("/")[2].partition("?")[0]

    def add_and_publish(task: str = PURGE) -> None:
        row_id = uuid7()
        postgres_server.execute(
            "insert into platform.outbox (id, task, payload, state, created_at) "  # noqa: S608 -- the test's own values
            f"values ('{row_id}', '{task}', '{{}}', 'published', now())",
            database=name,
        )
        celery.send_task(task, task_id=str(row_id), queue="default")

    return add_and_publish


def test_children_count_together_and_a_killed_one_loses_nothing(programs: Programs, send: Callable[..., None]) -> None:
    """The parent's port shows the sum of two children; after `kill -9` of both, the sum continues from there."""
    programs.start("run")
    done = {"task": PURGE, "queue": "default", "outcome": "succeeded"}
    for _ in range(10):
        send()
    programs.until(lambda: programs.value("run", "task_total", **done) == 10)
    assert programs.value("run", "task_duration_seconds_count", task=PURGE) == 10
    assert programs.value("run", "task_wait_seconds_count", task=PURGE, queue="default") == 10
    assert 0 < programs.value("run", "task_wait_seconds_sum", task=PURGE) < 10 * 60
    assert programs.value("run", "app_info", service="worker") == 1
    programs.until(lambda: programs.value("run", "event_loop_lag_seconds_count") > 0)  # measured once a second
    programs.until(lambda: programs.value("run", "service_up", service="worker") == 1)
    # A collector of another package: each child has a pool of at most 15 connections.
    programs.until(lambda: programs.value("run", "db_pool_limit") == 2 * 15)
    killed = programs.children()
    for child in killed:
        child.kill()
    programs.until(lambda: len(programs.children()) == 2 and not set(programs.children()) & set(killed))
    for _ in range(5):
        send()
    programs.until(lambda: programs.value("run", "task_total", **done) == 15)
    programs.until(lambda: programs.value("run", "db_pool_limit") == 2 * 15)  # dead children are not counted
    programs.stop()


async def test_the_attempt_of_a_killed_child_counts_as_lost(
    programs: Programs, send: Callable[..., None], database_url: str
) -> None:
    """`kill -9` of a child counts one lost attempt of its task, and the next attempt succeeds."""
    name = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    blocker = await asyncpg.connect(name)
    try:
        await blocker.execute("begin; lock table platform.inbox in access exclusive mode")
        programs.start("run")
        send()
        running = "select worker from platform.outbox where state = 'running'"
        pid = int((await eventual_value(blocker, running)).rpartition(":")[2])
        os.kill(pid, signal.SIGKILL)
        programs.until(lambda: programs.value("run", "task_total", outcome="lost", task=PURGE, queue="default") == 1)
    finally:
        await blocker.close()
    programs.until(lambda: programs.value("run", "task_total", outcome="succeeded", task=PURGE) == 1)
    assert programs.value("run", "task_total", outcome="lost") == 1
    programs.stop()


async def eventual_value(connection: asyncpg.Connection, query: str) -> str:
    """Return the value of a query as soon as it has one."""
    deadline = time.monotonic() + 40
    while (value := await connection.fetchval(query)) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return str(value)


def acknowledged(celery: Celery) -> bool:
    """Return whether the broker holds no delivered message without acknowledgement."""
    with celery.connection_for_read() as connection:
        return connection.default_channel.client.hlen("unacked") == 0  # type: ignore[attr-defined,no-any-return]  # -- kombu's Redis channel


def test_a_worker_starts_counting_at_nothing(programs: Programs, celery: Celery, send: Callable[..., None]) -> None:
    """Files that an earlier worker left in the folder are not counted."""
    for _ in range(2):
        programs.start("run")
        send()
        programs.until(lambda: programs.value("run", "task_total", outcome="succeeded") == 1)
        programs.until(lambda: acknowledged(celery))  # otherwise the next worker would get the message again
        programs.stop()


def test_messages_cannot_add_labels(programs: Programs, send: Callable[..., None]) -> None:
    """Messages for unknown tasks are counted under the task that receives them, whatever their names."""
    programs.start("run")
    for number in range(20):
        send(f"invented.task_{number}")
    unknown = {"task": "tequipy.unknown", "queue": "default", "outcome": "retried"}
    programs.until(lambda: programs.value("run", "task_total", **unknown) == 20)
    programs.stop()


@pytest.mark.parametrize("command", ["beat", "relay"])
def test_scheduler_and_relay_have_metrics_of_their_own(programs: Programs, command: str) -> None:
    """Each process serves its port, with the lag of its loop and its pool of connections."""
    programs.start(command)
    programs.until(lambda: programs.value(command, "event_loop_lag_seconds_count") > 0, command)
    programs.until(lambda: programs.value(command, "db_pool_limit") > 0, command)
    assert programs.value(command, "app_info", service=command) == 1
    programs.until(lambda: programs.value(command, "service_up", service=command) == 1, command)
    programs.stop()


def test_the_relay_exports_the_last_tick_of_the_schedulers(programs: Programs) -> None:
    """Any relay shows when a scheduler last looked at its schedule, so a dead or frozen scheduler is noticed."""
    tick = "scheduler_last_tick_timestamp"
    programs.start("relay")
    programs.until(lambda: programs.value("relay", "app_info") == 1, "relay")
    assert programs.value("relay", tick) == 0
    programs.start("beat")
    programs.until(lambda: programs.value("relay", tick) > 0, "beat")
    first = programs.value("relay", tick)
    programs.until(lambda: programs.value("relay", tick) > first, "beat")
    programs.stop()


@pytest.mark.parametrize("command", ["run", "beat", "relay"])
def test_a_port_that_is_taken_ends_the_process(programs: Programs, command: str) -> None:
    """If the metrics port is taken, the process exits with a message that names the port and its setting."""
    with socket.create_server(("", port := programs.free_port())):
        assert programs.start(command, port).wait(40) == 1
    assert f"port {port}" in programs.log(command)
    assert "TEQUIPY_OBSERVABILITY__METRICS_PORT" in programs.log(command)


def test_the_relay_exports_the_pool_that_it_uses(programs: Programs) -> None:
    """The relay's `db_pool_*` count the connections with which it reads the outbox."""
    programs.start("relay")
    programs.until(
        lambda: programs.value("relay", "db_pool_idle") + programs.value("relay", "db_pool_in_use") >= 1, "relay"
    )

"""Fixtures for the worker program beside these tests."""

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving.forked import ForkedCommand, forked_command
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.tables import create_tables
from tequipy_platform.database import Database
from tequipy_platform.messaging import build_unpublished_messages
from tequipy_platform.messaging.celery import build_relay

from .relaying import TASKS, BuildWorker, RunRelay
from .releases import Releases
from .worker_under_test import WorkerUnderTest


@pytest.fixture
def program() -> Path:
    return Path(__file__).with_name("worker_program.py")


@pytest.fixture
def build_worker(program: Path) -> Callable[[str, Path], Celery]:
    """Return the program's function `build_worker`, loaded from its file because it is in no package."""
    spec = importlib.util.spec_from_file_location("worker_program", program)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build: Callable[[str, Path], Celery] = module.build_worker
    return build


@pytest.fixture(scope="session")
def forked_program() -> Iterator[ForkedCommand]:
    """Yield the program, imported once for all workers of this process's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with forked_command("worker_program", "worker_program:main") as command:
            yield command


@pytest.fixture
def worker(
    redis_url: str,
    tmp_path: Path,
    forked_program: ForkedCommand,
    build_worker: BuildWorker,
    postgres_server: PostgresServer,
    database_url: str,
) -> Iterator[WorkerUnderTest]:
    celery = build_worker(redis_url, tmp_path)
    running = WorkerUnderTest(forked_program, redis_url, tmp_path, celery, postgres_server, database_url)
    running.start()
    try:
        yield running
    finally:
        running.kill()
        celery.close()


@pytest.fixture
def releases(
    tmp_path: Path, private_postgres: PostgresServer, private_redis: ValkeyServer, mail_sink: MailSink
) -> Iterator[Releases]:
    database_url = private_postgres.create_database("releases")
    create_tables(database_url)
    mail_url = f"smtp://127.0.0.1:{mail_sink.port}"
    running = Releases(tmp_path, private_postgres, database_url, private_redis.url(), mail_url)
    running.sql("create table public.effects (task text, number int, worker int)")
    yield running
    running.kill_all()


@pytest.fixture
def run_relay(database: Database, build_worker: BuildWorker, tmp_path: Path) -> RunRelay:
    @asynccontextmanager
    async def run(
        broker_url: str, redelivery: timedelta = timedelta(minutes=5), *, through: Database = database
    ) -> AsyncIterator[None]:
        celery = build_worker(broker_url, tmp_path)
        queues = {task.name: task.queue for task in TASKS}
        messages = build_unpublished_messages(through, redelivery=redelivery, queues=queues)
        async with messages, build_relay(celery, messages, TASKS) as relay:
            running = asyncio.create_task(relay.run())
            try:
                yield
            finally:
                relay.stop()
                await asyncio.wait_for(running, 15)
                celery.close()

    return run

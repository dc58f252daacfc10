"""The same promises on RabbitMQ with quorum queues as on Redis: nothing is lost or doubled, whatever is killed."""

import asyncio
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from amqp.exceptions import AccessRefused, MessageNacked
from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from tequipy_devstack.proving import Authority, Link, in_background
from tequipy_devstack.proving.forked import ForkedCommand
from tequipy_devstack.servers import PostgresServer, RabbitmqServer
from tequipy_platform.database import Database
from tequipy_platform.messaging import SqlUnitOfWork
from tequipy_platform.messaging.celery import CelerySettings, build_celery
from tequipy_platform.messaging.celery.broker_probe import PROBE_QUEUE, accepts_writes

from .relaying import BuildWorker, RunRelay, commit
from .test_foreign import BODY
from .worker_under_test import WorkerUnderTest

# Requires the Debian package rabbitmq-server: CI installs it, and then runs the quick proofs.
pytestmark = [
    pytest.mark.prove,
    pytest.mark.quick,
    pytest.mark.xdist_group("rabbitmq"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not RabbitmqServer.is_installed(), reason="apt-get install rabbitmq-server"),
]
QUEUES = ("default", "email", PROBE_QUEUE)


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitmqServer]:
    with tempfile.TemporaryDirectory(prefix="tequipy-rabbitmq-") as folder, RabbitmqServer(Path(folder)) as server:
        with celery_on(server.url()) as celery, celery.connection_for_write() as connection:
            for queue in celery.amqp.queues.values():
                queue.bind(connection.channel()).declare()
            assert accepts_writes(celery)
        # RabbitMQ 3.10 stores the name of a new quorum queue at an orderly stop, or minutes later: killed before that,
        # it starts with a queue that accepts nothing.
        server.restart()
        yield server


@pytest.fixture
def broker_url(rabbitmq: RabbitmqServer) -> str:
    """Return the URL of a RabbitMQ whose queues are empty."""
    with Connection(rabbitmq.url()) as connection:
        for name in QUEUES:
            Queue(name).bind(connection.channel()).purge()
    return rabbitmq.url()


@pytest.fixture
def worker(
    broker_url: str,
    tmp_path: Path,
    forked_program: ForkedCommand,
    build_worker: BuildWorker,
    postgres_server: PostgresServer,
    database_url: str,
) -> Iterator[WorkerUnderTest]:
    celery = build_worker(broker_url, tmp_path)
    running = WorkerUnderTest(forked_program, broker_url, tmp_path, celery, postgres_server, database_url)
    running.start()
    yield running
    running.kill()
    celery.close()


@contextmanager
def celery_on(url: str) -> Iterator[Celery]:
    settings = CelerySettings(broker_url=SecretStr(url))
    celery = build_celery(settings, name="test", queues=["email"])
    yield celery
    celery.close()


def depth(url: str, queue: str = "default") -> int:
    """Return the number of messages that wait in a queue."""
    with Connection(url) as connection:
        declared: Any = Queue(queue).bind(connection.channel()).queue_declare(passive=True)
        return int(declared.message_count)


async def until(condition: Callable[[], bool], *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def add_a_hundred(work: SqlUnitOfWork) -> None:
    for _ in range(100):
        work.outbox.add("test.note", word="x")


def publish_raw(url: str, body: bytes, **options: Any) -> None:
    with Connection(url) as connection, connection.Producer() as producer:
        producer.publish(body, routing_key="default", declare=[], serializer=None, **options)


def test_a_task_runs_and_a_killed_child_or_worker_loses_nothing(
    worker: WorkerUnderTest, rabbitmq: RabbitmqServer
) -> None:
    """Tasks run from quorum queues; that of a killed child, and that of a killed worker, run again within seconds."""
    worker.until_state(worker.send("test.note", word="hello"), "done")
    died = worker.until_state(worker.send("test.die_once"), "done", within=60)
    assert (died["attempts"], died["deaths"]) == (2, 1)
    hanging = worker.send("test.hang_once")
    worker.until("hang_once")
    worker.kill()
    worker.start()
    assert worker.until_state(hanging, "done", within=60)["deaths"] == 1
    queues = dict(line.split() for line in rabbitmq.control("list_queues", "name", "type").splitlines()[1:])
    assert {queues["default"], queues["email"]} == {"quorum"}
    assert not [name for name in queues if "delayed" in name]


def test_waiting_messages_survive_a_restart(worker: WorkerUnderTest, rabbitmq: RabbitmqServer) -> None:
    """With RabbitMQ killed and restarted while 100 messages wait, each of them runs, and the worker stays."""
    worker.kill()
    rows = [worker.send("test.note", word=str(number)) for number in range(100)]
    process = worker.start()
    worker.until("note")
    rabbitmq.kill()
    rabbitmq.restart()
    for row_id in rows:
        worker.until_state(row_id, "done", within=120)
    assert len({line["id"] for line in worker.events("note")}) == 100
    assert process.poll() is None


def test_foreign_bodies_become_dead_letters(worker: WorkerUnderTest) -> None:
    """Bodies that are no JSON, no message of ours, pickle or compressed become dead letters and end no worker."""
    worker.until_state(worker.send("test.note", word="first"), "done")
    url, json_type = worker.broker_url, {"content_type": "application/json", "content_encoding": "utf-8"}
    headers = {"task": "test.note", "id": "0195b6a5-0000-7000-8000-000000000001"}
    publish_raw(url, b"\xff\x00garbage", content_type="text/plain", content_encoding="binary")
    publish_raw(url, b"{}", **json_type)
    publish_raw(url, b"[[], {}, {}]", headers={"task": "test.note", "id": "abc"}, **json_type)
    publish_raw(url, b"[[], {}, {}]", headers=headers | {"compression": "no-such"}, **json_type)
    publish_raw(url, BODY.encode(), headers=headers, content_type="application/x-python-serialize")
    publish_raw(url, b"x" * 1024 * 1024, headers=headers, **json_type)
    worker.until_state(worker.send("test.note", word="last"), "done")
    texts = worker.sql("select error from platform.outbox where task = 'tequipy.foreign' order by id").splitlines()
    assert len(texts) == 6
    assert all(text.startswith("foreign body, ") for text in texts)
    assert worker.processes[0].poll() is None


@pytest.mark.parametrize("fault", ["hangs", "is away", "is full"])
def test_the_probe_tells_a_broker_that_refuses_every_write(
    rabbitmq: RabbitmqServer, broker_url: str, fault: str
) -> None:
    """It fails within seconds on a RabbitMQ that hangs, is away, or is above its memory limit, and works afterwards."""
    with celery_on(broker_url) as celery:
        assert accepts_writes(celery)
        if fault == "hangs":
            rabbitmq.freeze()
        elif fault == "is away":
            rabbitmq.kill()
        else:
            rabbitmq.control("set_vm_memory_high_watermark", "absolute", "1")
        began = time.monotonic()
        assert not accepts_writes(celery)
        assert time.monotonic() - began < 30
        if fault == "hangs":
            rabbitmq.thaw()
        elif fault == "is away":
            rabbitmq.restart()
        else:
            rabbitmq.control("set_vm_memory_high_watermark", "0.4")
        deadline = time.monotonic() + 60
        while not accepts_writes(celery):
            assert time.monotonic() < deadline
    assert depth(broker_url, PROBE_QUEUE) == 0


async def test_the_relay_publishes_again_after_each_fault(
    database: Database, rabbitmq: RabbitmqServer, broker_url: str, run_relay: RunRelay
) -> None:
    """Rows committed while RabbitMQ is killed or frozen are in its queue soon after it is back."""
    async with run_relay(broker_url):
        await commit(database, lambda work: work.outbox.add("test.note", word="before"))
        await until(lambda: depth(broker_url) >= 1)
        await asyncio.to_thread(rabbitmq.kill)
        await commit(database, lambda work: work.outbox.add("test.note", word="away"))
        rabbitmq.restart()
        await until(lambda: depth(broker_url) >= 2)
        rabbitmq.freeze()
        await commit(database, lambda work: work.outbox.add("test.note", word="frozen"))
        await asyncio.sleep(7)  # longer than a publication may take
        rabbitmq.thaw()
        await until(lambda: depth(broker_url) >= 3)


async def test_a_thousand_tasks_run_exactly_once(
    database: Database, rabbitmq: RabbitmqServer, worker: WorkerUnderTest, run_relay: RunRelay
) -> None:
    """While child, worker and RabbitMQ are killed, each of 1,000 tasks runs, and each row is done."""

    def settled() -> int:
        return int(worker.sql("select count(*) from platform.outbox where state = 'done'"))

    for _ in range(10):
        await commit(database, add_a_hundred)
    async with run_relay(worker.broker_url):
        await until(lambda: settled() >= 100)
        for child in psutil.Process(worker.processes[0].pid).children():
            child.kill()
        await until(lambda: settled() >= 300)
        worker.kill()
        worker.start()
        await until(lambda: settled() >= 500)
        rabbitmq.kill()
        rabbitmq.restart()
        await until(lambda: settled() >= 1000, within=200)
    assert worker.sql("select state, count(*) from platform.outbox group by state").split() == ["done|1000"]
    ran = [line["id"] for line in worker.events("note")]
    print(f"\n1,000 tasks on RabbitMQ: {len(set(ran))} ran, {len(ran) - len(set(ran))} ran twice")
    assert len(set(ran)) == 1000


@pytest.mark.parametrize("trusted", [True, False])
def test_the_certificate_is_verified(rabbitmq: RabbitmqServer, tmp_path: Path, trusted: bool) -> None:
    """`amqps://` connects to a server of the given authority, and to no other."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate = (ours if trusted else theirs).issue("127.0.0.1")
    with in_background(Link(rabbitmq.port, certificate=certificate)) as link:
        url = rabbitmq.url().replace("amqp://", "amqps://").replace(f":{rabbitmq.port}/", f":{link.port}/")
        with celery_on(f"{url}?ssl_ca_certs={ours.certificate}") as celery, celery.connection_for_write() as connection:
            if trusted:
                connection.ensure_connection(max_retries=1)
                assert accepts_writes(celery)
            else:
                with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
                    connection.ensure_connection(max_retries=1)


def test_a_message_that_the_queue_refuses_is_an_error(broker_url: str) -> None:
    """Publications are confirmed: what the broker refuses raises where it is published, also within a batch."""
    full = {"x-max-length": 0, "x-overflow": "reject-publish"}
    with celery_on(broker_url) as celery, celery.connection_for_write() as connection:
        queue = Queue("tequipy.test.full", queue_arguments=full).bind(connection.channel())
        queue.queue_declare()
        with connection.Producer() as producer, pytest.raises(MessageNacked), producer.batch(10):  # type: ignore[attr-defined]  # -- the stubs are of an older kombu
            producer.publish({}, routing_key=queue.name)
        queue.delete()


RIGHTS = re.compile(r"rabbitmqctl set_permissions -p tequipy tequipy '(.*)' '(.*)' '(.*)'")


def test_the_documented_rights_suffice(worker: WorkerUnderTest, rabbitmq: RabbitmqServer) -> None:
    """With the rights in the worker's README, tasks run and the probe works, and nothing is denied."""
    readme = Path(__file__).parents[5] / "apps" / "worker" / "README.md"
    (rights,) = RIGHTS.findall(readme.read_text(encoding="utf-8"))
    rabbitmq.control("add_user", "limited", "limited")
    rabbitmq.control("set_permissions", "-p", "/", "limited", *rights)
    denied_before = rabbitmq.log.read_text().count("access_refused")
    worker.kill()
    worker.broker_url = rabbitmq.url().replace(f"{rabbitmq.user}:{rabbitmq.password}", "limited:limited")
    worker.start()
    worker.until_state(worker.send("test.note", word="hello"), "done")
    with celery_on(worker.broker_url) as celery:
        assert accepts_writes(celery)
        celery.send_task("test.note", queue="email", retry=False)
        with pytest.raises(AccessRefused):
            celery.send_task("test.note", queue="others", retry=False)
    assert rabbitmq.log.read_text().count("access_refused") == denied_before + 1


def test_the_headers_survive(broker_url: str) -> None:
    """Correlation id, schema and task id arrive as they were sent."""
    with celery_on(broker_url) as celery:
        celery.send_task("test.note", task_id="x", headers={"tequipy_schema": 1}, queue="default")
        with celery.connection_for_read() as connection:
            message: Any = celery.amqp.queues["default"].bind(connection.channel()).get()
            message.ack()
        assert (message.headers["tequipy_schema"], message.headers["id"]) == (1, "x")
        assert json.loads(message.body)[1] == {}

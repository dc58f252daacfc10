"""The relay between a real PostgreSQL and a real broker: every committed message is published despite outages."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from tequipy_devstack.servers import ValkeyServer
from tequipy_observability import RequestContext, request_context
from tequipy_platform import Batch, Event, UnpublishedMessage, UnpublishedMessages
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.database.ids import derived_id
from tequipy_platform.messaging import SqlUnitOfWork, build_unpublished_messages
from tequipy_platform.messaging.celery import build_relay
from tequipy_platform.messaging.models import OutboxRow
from tequipy_platform.messaging.relay import BATCH
from tequipy_platform.messaging.unpublished import (
    SqlUnpublishedMessages,
)

from .relaying import TASKS, BuildWorker, RunRelay, commit, published, until


async def test_a_relay_is_woken_by_its_own_schema_alone(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two installations in one database, each wakes its own relay only."""
    woken: list[object] = []
    original = SqlUnpublishedMessages._on_notification

    def remember(self: SqlUnpublishedMessages, *arguments: Any) -> None:
        original(self, *arguments)
        woken.append((arguments[-1], self._added.is_set()))
        self._added.clear()

    monkeypatch.setattr(SqlUnpublishedMessages, "_on_notification", remember)
    settings = DatabaseSettings(url=SecretStr(database_url), schemas={"platform": "shop_platform"})
    async with build_database(settings) as renamed:
        messages = build_unpublished_messages(renamed, redelivery=timedelta(minutes=5))
        async with messages, database.own_connection() as connection:
            deadline = time.monotonic() + 20
            while not woken:  # until it listens
                await connection.execute("select pg_notify('tequipy_outbox', '')")
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            woken.clear()
            await connection.execute("select pg_notify('tequipy_outbox', 'platform')")
            await connection.execute("select pg_notify('tequipy_outbox', 'shop_platform')")
            await until(lambda: ("shop_platform", True) in woken)
    assert ("platform", False) in woken


async def test_a_row_becomes_one_message(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """The message has the row's id, correlation id and trace, no payload, and the row is marked as published."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with request_context(RequestContext(correlation_id="abc", traceparent=trace)):
        (row_id,) = await commit(database, lambda work: work.outbox.add("test.note", word="hello"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))
    (message,) = published(redis_url)
    assert (message["id"], message["task"], message["payload"]) == (str(row_id), "test.note", {"word": "hello"})
    assert (message["tequipy_correlation_id"], message["traceparent"]) == ("abc", trace)
    async with database.sessions() as session:
        row = await session.get_one(OutboxRow, row_id)
        assert row.published_at is not None


async def test_a_commit_wakes_the_relay(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """Rows committed while the relay runs are published once each, in their order."""
    async with run_relay(redis_url):
        for number in range(20):
            word = str(number)
            await commit(database, lambda work, word=word: work.outbox.add("test.note", word=word))  # type: ignore[misc]  # -- the default binds the loop's value
        await until(lambda: len(published(redis_url)) >= 20)
    assert [message["payload"]["word"] for message in published(redis_url)] == [str(number) for number in range(20)]


async def test_an_event_becomes_a_message_for_each_subscriber(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """Each subscribed task gets a message on its own queue, with an id derived from row and task."""
    (row_id,) = await commit(database, lambda work: work.outbox.publish(Event("test.noted", {"word": "hi"})))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url, "email")))
    ids = {message["task"]: message["id"] for message in [*published(redis_url), *published(redis_url, "email")]}
    assert ids == {task: str(derived_id(row_id, task)) for task in ("test.note", "test.note_too")}


async def test_an_event_without_tasks_is_settled(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """An event without subscribed tasks does not block other messages."""
    await commit(database, lambda work: work.outbox.publish(Event("test.unsubscribed")))
    await commit(database, lambda work: work.outbox.add("test.note", word="after"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))


async def test_a_delayed_row_is_published_later(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """A row is not published before its `not_before`, while rows added later are."""
    later = datetime.now(UTC) + timedelta(hours=1)
    await commit(database, lambda work: work.outbox.add("test.note", not_before=later, word="later"))
    await commit(database, lambda work: work.outbox.add("test.note", word="now"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))
    assert [message["payload"]["word"] for message in published(redis_url)] == ["now"]


async def test_rolled_back_work_publishes_nothing(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """A message of a transaction that was rolled back is not published."""

    def fail(work: SqlUnitOfWork) -> None:
        work.outbox.add("test.note", word="never")
        raise LookupError

    with pytest.raises(LookupError):
        await commit(database, fail)
    await commit(database, lambda work: work.outbox.add("test.note", word="after"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))
    assert [message["payload"]["word"] for message in published(redis_url)] == ["after"]


async def test_a_broker_that_is_away_loses_nothing(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay
) -> None:
    """Rows committed while the broker is down are published when it is back."""
    broker_url = private_redis.url()
    async with run_relay(broker_url):
        await commit(database, lambda work: work.outbox.add("test.note", word="before"))
        await until(lambda: bool(published(broker_url)))
        private_redis.kill()
        for word in ("one", "two"):
            await commit(database, lambda work, word=word: work.outbox.add("test.note", word=word))  # type: ignore[misc]  # -- the default binds the loop's value
        private_redis.restart()
        await until(lambda: {"one", "two"} <= {message["payload"]["word"] for message in published(broker_url)})


async def test_two_relays_share_the_work(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """Each row is published once, whatever the number of relays."""

    def write(work: SqlUnitOfWork) -> None:
        for number in range(300):
            work.outbox.add("test.note", word=str(number))

    async with run_relay(redis_url), run_relay(redis_url):
        ids = await commit(database, write)
        await until(lambda: len(published(redis_url)) >= 300)
    assert sorted(message["id"] for message in published(redis_url)) == sorted(map(str, ids))


class LentMessages(UnpublishedMessages):
    """A batch that is never empty, and that records its results."""

    def __init__(self) -> None:
        self.lent = asyncio.Event()
        self.marked: set[UUID] = set()

    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        assert (subscribers["test.noted"], limit) == (["test.note", "test.note_too"], BATCH)
        return 0

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        batch = Batch([UnpublishedMessage(uuid7(), "test.note") for _ in range(limit)])
        self.lent.set()
        yield batch
        self.marked |= batch.published

    async def wait(self, at_most: float) -> None:
        await asyncio.sleep(at_most)


class UnreachableMessages(LentMessages):
    """A database that has been away for hours."""

    failures = 0

    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:  # noqa: ARG002
        self.failures += 1
        if self.failures == 1100:
            self.lent.set()
        raise ConnectionRefusedError


async def test_an_outage_of_hours_is_survived(
    redis_url: str, build_worker: BuildWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay still runs after 1,100 failures, which take three hours."""
    monkeypatch.setattr("tequipy_platform.messaging.relay._MAX_PAUSE", 0)
    celery, messages = build_worker(redis_url, tmp_path), UnreachableMessages()
    async with build_relay(celery, messages, TASKS) as relay:
        running = asyncio.create_task(relay.run())
        async with asyncio.timeout(60):
            await asyncio.wait({running, asyncio.ensure_future(messages.lent.wait())}, return_when="FIRST_COMPLETED")
        assert not running.done()
        relay.stop()
        await running
    celery.close()


async def test_a_cancelled_relay_ends_its_batch(redis_url: str, build_worker: BuildWorker, tmp_path: Path) -> None:
    """A cancelled relay finishes the current batch: its published messages are marked, and no others."""
    celery, messages = build_worker(redis_url, tmp_path), LentMessages()
    async with build_relay(celery, messages, TASKS) as relay:
        running = asyncio.create_task(relay.run())
        await messages.lent.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    celery.close()
    assert messages.marked
    assert {message["id"] for message in published(redis_url)} == set(map(str, messages.marked))


@pytest.mark.prove
@pytest.mark.quick
async def test_a_relay_can_be_stopped_while_the_broker_hangs(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """A frozen broker is logged as an outage, the relay can be stopped meanwhile, and no message is lost."""
    broker_url = private_redis.url()
    async with run_relay(broker_url):
        await commit(database, lambda work: work.outbox.add("test.note", word="before"))
        await until(lambda: bool(published(broker_url)))
        private_redis.freeze()
        await commit(database, lambda work: work.outbox.add("test.note", word="meanwhile"))
        await until(lambda: any(record.message == "relay_interrupted" for record in caplog.records))
    private_redis.thaw()
    async with run_relay(broker_url):
        await until(lambda: "meanwhile" in {message["payload"]["word"] for message in published(broker_url)})

"""The relay between a real PostgreSQL and a real broker: every committed message is published despite outages."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid5

import pytest
from celery import Celery
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Select, make_url, text, update

from tequipy_devstack.proving import Link, in_background
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_observability import RequestContext, request_context
from tequipy_platform import Batch, Event, SystemClock, Task, UnpublishedMessage, UnpublishedMessages
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log, build_unpublished_messages
from tequipy_platform.messaging.celery import build_relay
from tequipy_platform.messaging.celery.headers import ATTEMPTS_HEADER, FAILING_HEADER
from tequipy_platform.messaging.celery.relay import BATCH
from tequipy_platform.messaging.models import OutboxRow
from tequipy_platform.messaging.unpublished import (
    _EVENT,
    _MISSED,
    _NEW,
    MAX_PUBLICATIONS,
    SqlUnpublishedMessages,
    _select_unlocked,
)

BuildWorker = Callable[[str, Path], Celery]
RunRelay = Callable[..., AbstractAsyncContextManager[None]]
MISSED_SOON = timedelta(seconds=3)
TASKS = [Task("test.note", on=("test.noted",)), Task("test.note_too", on=("test.noted",), queue="email")]


@pytest.fixture
def run_relay(database: Database, build_worker: BuildWorker, tmp_path: Path) -> RunRelay:
    @asynccontextmanager
    async def run(
        broker_url: str, redelivery: timedelta = timedelta(minutes=5), *, through: Database = database
    ) -> AsyncIterator[None]:
        celery = build_worker(broker_url, tmp_path)
        messages = build_unpublished_messages(through, redelivery=redelivery)
        async with messages, build_relay(celery, messages, TASKS) as relay:
            running = asyncio.create_task(relay.run())
            try:
                yield
            finally:
                relay.stop()
                await asyncio.wait_for(running, 15)
                celery.close()

    return run


async def commit(database: Database, write: Callable[[SqlUnitOfWork], None]) -> list[UUID]:
    """Run one unit of work and return the ids of the outbox rows that it wrote, in order."""
    made: list[UUID] = []

    def new_id() -> UUID:
        made.append(uuid7())
        return made[-1]

    async with SqlUnitOfWork(database, SystemClock(), new_id) as work:
        write(work)
    return made


def published(broker_url: str, queue: str = "default") -> list[dict[str, Any]]:
    """Return the waiting messages of a broker queue, oldest first."""
    with Redis.from_url(broker_url) as redis:
        messages = [json.loads(raw) for raw in redis.lrange(queue, 0, -1)]
    return [
        message["headers"] | {"kwargs": json.loads(base64.b64decode(message["body"]))[1]}
        for message in reversed(messages)
    ]


async def until(probe: Callable[[], bool], *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_relay_is_woken_by_its_own_schema_alone(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two installations in one database, each wakes its own relay; a notification without a schema wakes both."""
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


async def test_the_trigger_names_its_schema(database: Database) -> None:
    """An insert into the outbox notifies with the name of its schema."""
    payloads: list[object] = []
    async with database.own_connection() as connection:
        await connection.add_listener("tequipy_outbox", lambda *arguments: payloads.append(arguments[-1]))
        await commit(database, lambda work: work.outbox.add("test.note", word="hello"))
        await until(lambda: bool(payloads))
    assert payloads == ["platform"]


async def test_a_row_becomes_one_message(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """The message has the row's id, payload, correlation id and trace, and the row is marked as published."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with request_context(RequestContext(correlation_id="abc", traceparent=trace)):
        (row_id,) = await commit(database, lambda work: work.outbox.add("test.note", word="hello"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))
    (message,) = published(redis_url)
    assert (message["id"], message["task"], message["kwargs"]) == (str(row_id), "test.note", {"word": "hello"})
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
    assert [message["kwargs"]["word"] for message in published(redis_url)] == [str(number) for number in range(20)]


async def test_an_event_becomes_a_message_for_each_listener(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """Each subscribed task gets a message on its own queue, with an id derived from row and task."""
    (row_id,) = await commit(database, lambda work: work.outbox.publish(Event("test.noted", {"word": "hi"})))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url, "email")))
    ids = {message["task"]: message["id"] for message in [*published(redis_url), *published(redis_url, "email")]}
    assert ids == {task: str(uuid5(row_id, task)) for task in ("test.note", "test.note_too")}


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
    assert [message["kwargs"]["word"] for message in published(redis_url)] == ["now"]


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
    assert [message["kwargs"]["word"] for message in published(redis_url)] == ["after"]


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
        await until(lambda: {"one", "two"} <= {message["kwargs"]["word"] for message in published(broker_url)})


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

    async def fan_out(self, listeners: Mapping[str, Sequence[str]], limit: int) -> int:
        assert (listeners["test.noted"], limit) == (["test.note", "test.note_too"], BATCH)
        return 0

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        batch = Batch([UnpublishedMessage(uuid7(), "test.note", {"word": "hi"}, None, None) for _ in range(limit)])
        self.lent.set()
        yield batch
        self.marked |= batch.published

    async def wait(self, at_most: float) -> None:
        await asyncio.sleep(at_most)


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


async def test_messages_that_the_broker_lost_are_published_again(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay
) -> None:
    """When the broker comes back empty, unsettled messages are published again under their ids, settled ones not."""
    broker_url = private_redis.url()
    async with run_relay(broker_url, MISSED_SOON):
        (lost,) = await commit(database, lambda work: work.outbox.add("test.note", word="lost"))
        (done,) = await commit(database, lambda work: work.outbox.add("test.note", word="done"))
        await until(lambda: len(published(broker_url)) >= 2)
        await build_message_log(database).settle_message(done)
        private_redis.restart(empty=True)
        await until(lambda: bool(published(broker_url)))
    assert {message["id"] for message in published(broker_url)} == {str(lost)}


async def test_a_failed_message_is_published_again_when_it_is_due(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """A failed message is published after its wait, with its id, the number of failures and the time of the first."""
    (failed,) = await commit(database, lambda work: work.outbox.add("test.note", word="failed"))
    (waiting,) = await commit(database, lambda work: work.outbox.add("test.note", word="waiting"))
    async with run_relay(redis_url, MISSED_SOON):
        await until(lambda: len(published(redis_url)) == 2)
        assert await build_message_log(database).retry_message(waiting, timedelta(hours=1))
        for times in (2, 3):
            began = datetime.now(UTC)
            assert await build_message_log(database).retry_message(failed, timedelta(seconds=1))
            await until(lambda times=times: ids(redis_url).count(str(failed)) >= times)  # type: ignore[misc]  # -- as above
            assert datetime.now(UTC) - began >= timedelta(seconds=1)
    first, second, third = (message for message in published(redis_url) if message["id"] == str(failed))
    assert [message[ATTEMPTS_HEADER] for message in (first, second, third)] == [0, 1, 2]
    assert (first[FAILING_HEADER], second[FAILING_HEADER]) == (None, third[FAILING_HEADER])
    row = await row_of(database, failed)
    assert row.failing_since is not None
    assert third[FAILING_HEADER] == row.failing_since.timestamp()
    assert row.publications == 1, "those that nobody answered"
    assert ids(redis_url).count(str(waiting)) == 1


async def test_a_settled_message_is_not_retried(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """When one of two copies of a message succeeds, the other one's failure causes no further attempt."""
    (before,) = await commit(database, lambda work: work.outbox.add("test.note", word="before"))
    (after,) = await commit(database, lambda work: work.outbox.add("test.note", word="after"))
    async with run_relay(redis_url):
        await until(lambda: len(published(redis_url)) == 2)
        assert await build_message_log(database).retry_message(before, timedelta(0))
        await build_message_log(database).settle_message(before)
        await build_message_log(database).settle_message(after)
        assert await build_message_log(database).retry_message(after, timedelta(0))
        await commit(database, lambda work: work.outbox.add("test.note", word="later"))
        await until(lambda: published(redis_url)[-1]["kwargs"]["word"] == "later")
    assert ids(redis_url).count(str(after)) == 1
    assert (await row_of(database, before)).settled_at is not None


async def test_a_message_that_is_not_from_the_outbox_is_not_retried(database: Database) -> None:
    """`retry_message` returns False for an id that is not in the outbox, and writes nothing."""
    assert not await build_message_log(database).retry_message(uuid7(), timedelta(0))


def ids(broker_url: str) -> list[str]:
    """Return the ids of the messages waiting in the broker."""
    return [str(message["id"]) for message in published(broker_url)]


async def row_of(database: Database, row_id: UUID) -> OutboxRow:
    async with database.sessions() as session:
        return await session.get_one(OutboxRow, row_id)


async def change(database: Database, row_id: UUID, **values: object) -> None:
    async with database.sessions.begin() as session:
        await session.execute(update(OutboxRow).where(OutboxRow.id == row_id).values(**values))


async def test_an_unpublishable_message_delays_no_other(
    database: Database, redis_url: str, run_relay: RunRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """An unpublishable message is logged as an error and postponed; the messages behind it are published at once."""
    (bad,) = await commit(database, lambda work: work.outbox.add("test.note"))
    await change(database, bad, payload=["no", "keywords"])  # only a manual change of the table can cause this
    await commit(database, lambda work: work.outbox.add("test.note", word="good"))
    async with run_relay(redis_url, timedelta(hours=1)):
        await until(lambda: bool(published(redis_url)))
    assert [message["kwargs"]["word"] for message in published(redis_url)] == ["good"]
    (logged,) = [record for record in caplog.records if record.message == "message_refused"]
    assert logged.__dict__["message_id"] == str(bad)
    row = await row_of(database, bad)
    assert (row.published_at, row.publications) == (None, 1)
    assert row.not_before > datetime.now(UTC) + timedelta(minutes=50)


async def test_messages_postponed_by_a_wrong_clock_are_published(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """Messages postponed while the database's clock was years ahead are published; intended delays are kept."""
    ahead, later = (datetime.now(UTC) + timedelta(days=days) for days in (1000, 7))
    (failed,) = await commit(database, lambda work: work.outbox.add("test.note", word="failed"))
    (lost,) = await commit(database, lambda work: work.outbox.add("test.note", word="lost"))
    (delayed,) = await commit(database, lambda work: work.outbox.add("test.note", not_before=later))
    await change(database, failed, not_before=ahead, failing_since=ahead, failed_attempts=1)
    await change(database, lost, published_at=ahead, redeliver_at=ahead, publications=1)
    async with run_relay(redis_url, timedelta(hours=1)):
        await until(lambda: len(published(redis_url)) == 2)
    assert {message["kwargs"]["word"] for message in published(redis_url)} == {"failed", "lost"}
    assert (await row_of(database, delayed)).not_before == later
    failing_since = (await row_of(database, failed)).failing_since
    assert failing_since is not None
    assert failing_since < later, "its lifetime counts from the correction"


async def test_a_message_that_is_never_settled_becomes_a_dead_letter(
    database: Database, redis_url: str, run_relay: RunRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that was published ten times and never settled is logged once, marked, and not published again."""
    (endless,) = await commit(database, lambda work: work.outbox.add("test.note", word="endless"))
    past = datetime.now(UTC) - timedelta(minutes=1)
    await change(database, endless, published_at=past, redeliver_at=past, publications=MAX_PUBLICATIONS)
    await commit(database, lambda work: work.outbox.add("test.note", word="good"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))
        await commit(database, lambda work: work.outbox.add("test.note", word="later"))
        await until(lambda: len(published(redis_url)) >= 2)
    assert [message["kwargs"]["word"] for message in published(redis_url)] == ["good", "later"]
    (logged,) = [record for record in caplog.records if record.message == "message_dead_lettered"]
    assert (logged.__dict__["message_id"], logged.__dict__["task"]) == (str(endless), "test.note")
    assert (await row_of(database, endless)).given_up_at is not None


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
        await until(lambda: "meanwhile" in {message["kwargs"]["word"] for message in published(broker_url)})


async def test_polling_finds_rows_without_a_notification(
    database: Database, redis_url: str, run_relay: RunRelay, postgres_server: PostgresServer
) -> None:
    """If the listening connection is cut or the trigger dropped, a message is late by at most the polling interval."""
    async with run_relay(redis_url):
        await commit(database, lambda work: work.outbox.add("test.note", word="woken"))
        await until(lambda: bool(published(redis_url)))
        postgres_server.execute("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'")
        await commit(database, lambda work: work.outbox.add("test.note", word="polled"))
        await until(lambda: len(published(redis_url)) >= 2)


async def test_many_events_are_fanned_out_in_batches(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """Any number of events is fanned out, one batch at a time."""

    def write(work: SqlUnitOfWork) -> None:
        for number in range(250):
            work.outbox.publish(Event("test.noted", {"word": str(number)}))

    await commit(database, write)
    async with run_relay(redis_url):
        await until(lambda: len(published(redis_url)) + len(published(redis_url, "email")) >= 500)


async def test_unpublished_rows_are_measured(database: Database) -> None:
    """`outbox_pending` counts due, unpublished rows; `outbox_oldest_age_seconds` is the age of the oldest."""
    registry = CollectorRegistry()
    later = datetime.now(UTC) + timedelta(hours=1)
    (old,) = await commit(database, lambda work: work.outbox.add("test.note"))
    await change(database, old, not_before=datetime.now(UTC) - timedelta(minutes=10))
    await commit(database, lambda work: work.outbox.publish(Event("test.noted")))
    await commit(database, lambda work: work.outbox.add("test.note", not_before=later))
    async with build_unpublished_messages(database, redelivery=MISSED_SOON, registry=registry):
        await until(lambda: registry.get_sample_value("outbox_pending") == 2)
    age = registry.get_sample_value("outbox_oldest_age_seconds")
    assert age is not None
    assert 600 <= age < 660


async def test_the_age_of_the_oldest_row_grows_between_measurements(
    database: Database, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database cannot be queried, the age of the oldest row keeps growing, and an age of 0 stays 0."""
    monkeypatch.setattr("tequipy_platform.messaging.unpublished._MEASURE_SECONDS", 3600)
    registry = CollectorRegistry()
    await commit(database, lambda work: work.outbox.add("test.note"))
    async with build_unpublished_messages(database, redelivery=MISSED_SOON, registry=registry):
        await until(lambda: registry.get_sample_value("outbox_pending") == 1)
        first = registry.get_sample_value("outbox_oldest_age_seconds") or 0
        await until(lambda: (registry.get_sample_value("outbox_oldest_age_seconds") or 0) > first)
    registry = CollectorRegistry()
    postgres_server.execute("update platform.outbox set published_at = now()", database=database._url.database or "")
    async with build_unpublished_messages(database, redelivery=MISSED_SOON, registry=registry):
        await until(lambda: registry.get_sample_value("outbox_pending") == 0)
        assert registry.get_sample_value("outbox_oldest_age_seconds") == 0


@pytest.mark.parametrize(
    ("question", "index"),
    [
        (_select_unlocked(_NEW, OutboxRow.not_before, OutboxRow.id, limit=BATCH), "ix_outbox_pending"),
        (_select_unlocked(_MISSED, OutboxRow.redeliver_at, limit=BATCH), "ix_outbox_unsettled"),
        (_select_unlocked(_EVENT, OutboxRow.id, limit=BATCH), "ix_outbox_events"),
    ],
    ids=["new", "missed", "event"],
)
async def test_due_rows_are_found_by_an_index(database: Database, question: Select[OutboxRow], index: str) -> None:
    """The relay's queries read neither settled rows nor rows that are not due."""
    fill = """
        insert into platform.outbox (id, task, event, payload, created_at, published_at, redeliver_at, settled_at)
        select gen_random_uuid(), task, event, '{}', now(), published, published + interval '1 hour', settled
        from generate_series(1, 2000), (values
            ('test.note', null, now(), now()), (null, 'test.noted', now(), now()), ('test.note', null, now(), null)
        ) as over (task, event, published, settled)
    """
    async with database.sessions.begin() as session:
        await session.execute(text(fill))
        await session.execute(text("analyze platform.outbox"))
        words = question.compile(dialect=database.engine.dialect, compile_kwargs={"literal_binds": True})
        plan = "\n".join(await session.scalars(text(f"explain {words}")))
    assert f"using {index} " in plan, plan
    assert "Sort" not in plan, plan


@asynccontextmanager
async def far_database(database_url: str) -> AsyncIterator[tuple[Database, Link]]:
    """Yield a database whose listening connections pass through a link that tests can cut."""
    url = make_url(database_url)
    assert url.port
    with in_background(Link(url.port)) as link:
        direct = url.set(port=link.port).render_as_string(hide_password=False)
        settings = {"url": database_url, "direct_url": direct, "connect_timeout": 1}
        async with build_database(DatabaseSettings.model_validate(settings)) as database:
            yield database, link


async def test_polling_finds_rows_after_a_silent_cut(database_url: str, redis_url: str, run_relay: RunRelay) -> None:
    """If the listening connection is cut without a reset, polling finds the committed rows."""
    async with far_database(database_url) as (database, link), run_relay(redis_url, through=database):
        await commit(database, lambda work: work.outbox.add("test.note", word="woken"))
        await until(lambda: bool(published(redis_url)))
        link.delay = 3600
        await commit(database, lambda work: work.outbox.add("test.note", word="polled"))
        await until(lambda: len(published(redis_url)) >= 2)


async def test_a_silently_cut_listener_reconnects(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener checks its connection periodically and opens a new one when there is no reply."""
    monkeypatch.setattr("tequipy_platform.messaging.unpublished._LISTENER_SECONDS", 0.3)
    async with (
        far_database(database_url) as (database, link),
        build_unpublished_messages(database, redelivery=MISSED_SOON) as messages,
    ):
        await until_woken(database, messages)
        link.delay = 3600
        await until(lambda: len(link._connections) >= 2)  # the second connection is cut as well
        link.delay = 0
        await until_woken(database, messages)


async def until_woken(database: Database, messages: SqlUnpublishedMessages) -> None:
    """Commit rows until one of them wakes the waiting relay."""
    messages._added.clear()
    async with asyncio.timeout(20):
        while not messages._added.is_set():
            await commit(database, lambda work: work.outbox.add("test.note"))
            await asyncio.sleep(0.02)


async def test_a_cancelled_wait_ends() -> None:
    """Cancelled in the moment in which rows are announced, the wait for rows ends with its cancellation."""
    swallowed = []
    for step in range(6):
        messages = SqlUnpublishedMessages(cast("Any", None), redelivery=timedelta(seconds=60))
        task = asyncio.create_task(messages.wait(60))
        for _ in range(3):
            await asyncio.sleep(0)
        messages._added.set()
        for _ in range(step):
            await asyncio.sleep(0)
        if task.cancel():
            await asyncio.wait({task})
            swallowed += [] if task.cancelled() else [step]
    print(f"swallowed at the steps {swallowed}")
    assert swallowed == []

"""Finding and measuring unpublished rows: by notification, by polling, by an index, and after a cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Select, make_url, text

from tequipy_devstack.proving import Link, in_background
from tequipy_devstack.servers import PostgresServer
from tequipy_platform import Event
from tequipy_platform.database import Database, DatabaseSettings, build_database
from tequipy_platform.messaging import SqlUnitOfWork, build_unpublished_messages
from tequipy_platform.messaging.missed import _LOST_ATTEMPT, _MISSED, COLUMNS, select_unlocked
from tequipy_platform.messaging.models import OutboxRow
from tequipy_platform.messaging.relay import BATCH
from tequipy_platform.messaging.unpublished import _DUE, _EVENT, SqlUnpublishedMessages

from .relaying import MISSED_SOON, RunRelay, change, commit, published, until


async def test_polling_finds_rows_without_a_notification(
    database: Database, redis_url: str, run_relay: RunRelay, postgres_server: PostgresServer
) -> None:
    """If the listening connection is cut or a notification lost, a message is late by at most the polling interval."""
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
    postgres_server.execute("update platform.outbox set state = 'done'", database=database._url.database or "")
    async with build_unpublished_messages(database, redelivery=MISSED_SOON, registry=registry):
        await until(lambda: registry.get_sample_value("outbox_pending") == 0)
        assert registry.get_sample_value("outbox_oldest_age_seconds") == 0


@pytest.mark.parametrize(
    ("question", "index"),
    [
        (select_unlocked(COLUMNS, _DUE, OutboxRow.not_before, OutboxRow.id, limit=BATCH), "ix_outbox_due"),
        (select_unlocked(COLUMNS, _LOST_ATTEMPT, OutboxRow.redeliver_at, limit=BATCH), "ix_outbox_running"),
        (
            select_unlocked(COLUMNS, _MISSED & (OutboxRow.queue == "email"), OutboxRow.published_at, limit=BATCH),
            "ix_outbox_published",
        ),
        (select_unlocked(COLUMNS, _EVENT, OutboxRow.id, limit=BATCH), "ix_outbox_events"),
    ],
    ids=["due", "lost", "missed", "event"],
)
async def test_due_rows_are_found_by_an_index(database: Database, question: Select[OutboxRow], index: str) -> None:
    """The relay's queries read neither settled rows nor rows that are not due."""
    fill = """
        insert into platform.outbox (id, task, event, payload, created_at, published_at, redeliver_at, queue, state)
        select gen_random_uuid(), task, event, '{}', now(), now(), now() + interval '1 hour', 'default', state
        from generate_series(1, 2000), (values
            ('test.note', null, 'done'), (null, 'test.noted', 'done'),
            ('test.note', null, 'published'), ('test.note', null, 'running')
        ) as over (task, event, state)
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
        await until(lambda: len(link.connections) >= 2)  # the second connection is cut as well
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

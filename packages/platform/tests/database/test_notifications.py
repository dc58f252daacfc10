"""Notifications after the commit: each reaches its listeners soon, and none delays or fails the work that caused it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_devstack.proving.waiting import eventually
from tequipy_devstack.servers import PostgresServer
from tequipy_devstack.tables import create_tables
from tequipy_platform import Conflicted, SystemClock
from tequipy_platform.database import Database, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

from .work import outbox_add, outbox_rows, select_one, settings, unit_of_work

Received = list[tuple[str, str]]


@asynccontextmanager
async def listening(database: Database, *channels: str) -> AsyncIterator[Received]:
    """Yield the list of channels and payloads that arrive while the block lasts."""
    received: Received = []
    async with database.direct_connection() as connection:
        for channel in channels:
            await connection.add_listener(channel, lambda *arguments: received.append(arguments[2:]))
        yield received


async def until(probe: Callable[[], object]) -> None:
    """Poll in a thread, so that the event loop goes on."""
    await asyncio.to_thread(eventually, "the notification has arrived", probe)


class RecordingDatabase(Database):
    """Records the notifications that a unit of work requests, instead of sending them."""

    requested: list[tuple[str, str]]

    def notify(self, channel: str, payload: str) -> None:
        """Record the request."""
        self.requested.append((channel, payload))


@pytest.fixture
async def recording(database_url: str) -> AsyncIterator[RecordingDatabase]:
    async with RecordingDatabase(settings(database_url)) as database:
        database.requested = []
        yield database


async def test_a_notification_arrives_soon(database: Database) -> None:
    """Listeners get channel and payload as they were given, quotes and backslashes included."""
    async with listening(database, "test_a", "test'b\"") as received:
        database.notify("test_a", "shop's \\ payload")
        database.notify("test'b\"", "")
        await until(lambda: len(received) == 2)
    assert sorted(received) == [("test'b\"", ""), ("test_a", "shop's \\ payload")]


async def test_a_committed_message_wakes_the_relay(database: Database) -> None:
    """A commit with an outbox row sends one notification with the schema's name."""
    async with listening(database, "tequipy_outbox", "test_end") as received:
        await outbox_add(database)
        database.notify("test_end", "")
        await until(lambda: ("test_end", "") in received)
    assert received == [("tequipy_outbox", "platform"), ("test_end", "")]


async def test_a_renamed_schema_is_named(database_url: str) -> None:
    """A unit of work on renamed schemas notifies with the name that its relay waits for."""
    async with RecordingDatabase(settings(database_url, schemas={"platform": "shop"})) as database:
        database.requested = []
        async with database.engine.begin() as connection:
            await connection.execute(text("create schema shop"))
            await connection.execute(text("create table shop.outbox (like platform.outbox including all)"))
        await outbox_add(database)
        async with database.engine.begin() as connection:
            await connection.execute(text("drop schema shop cascade"))
        assert database.requested == [("tequipy_outbox", "shop")]


async def test_only_committed_messages_notify(recording: RecordingDatabase) -> None:
    """There is no notification after a commit without messages, a rollback, a failed commit or a conflict."""
    same = uuid7()

    async def fail() -> None:
        async with unit_of_work(recording) as work:
            work.outbox.add("test.do")
            raise LookupError

    async def add_twice() -> None:
        async with SqlUnitOfWork(recording, SystemClock(), lambda: same) as work:
            work.outbox.add("test.do")
            work.outbox.add("test.do")

    async def conflict() -> None:
        async with unit_of_work(recording) as work:
            work.outbox.add("test.do")
            await work.session.execute(text("do $$ begin raise serialization_failure; end $$"))

    await select_one(recording)
    for attempt, error in ((fail, LookupError), (add_twice, IntegrityError), (conflict, Conflicted)):
        with pytest.raises(error):
            await attempt()
    assert (recording.requested, await outbox_rows(recording)) == ([], 0)
    await outbox_add(recording)
    assert recording.requested == [("tequipy_outbox", "platform")]


async def test_a_commit_whose_caller_was_cancelled_notifies(
    recording: RecordingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that finishes although its caller has been cancelled notifies like any other."""
    committing = asyncio.Event()
    commit = AsyncSession.commit

    async def slow_commit(session: AsyncSession) -> None:
        committing.set()
        await session.execute(text("select pg_sleep(0.2)"))
        await commit(session)

    monkeypatch.setattr(AsyncSession, "commit", slow_commit)
    writing = asyncio.create_task(outbox_add(recording))
    await committing.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (recording.requested, await outbox_rows(recording)) == ([("tequipy_outbox", "platform")], 1)


async def test_a_commit_does_not_wait_for_another(private_postgres: PostgresServer) -> None:
    """Commits with messages wait for the synchronous standby side by side, and a notification does not wait for it."""
    url = private_postgres.create_database("notified")
    await asyncio.to_thread(create_tables, url)
    waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
    async with build_database(settings(url)) as database, listening(database, "test_a") as received:
        private_postgres.execute("alter system set synchronous_standby_names = 'absent'")
        private_postgres.execute("select pg_reload_conf()")
        writing = [asyncio.create_task(outbox_add(database)) for _ in range(3)]
        try:
            await until(lambda: private_postgres.execute(waiting).strip() == "3")
            database.notify("test_a", "")
            await until(lambda: received)
        finally:
            private_postgres.execute("alter system reset synchronous_standby_names")
            private_postgres.execute("select pg_reload_conf()")
        await asyncio.gather(*writing)


async def test_requests_during_a_notification_become_one(private_postgres: PostgresServer) -> None:
    """Any number of requests while a notification is in flight cause one more for each payload, and return at once."""
    async with (
        build_database(settings(private_postgres.url())) as database,
        listening(database, "test_a") as received,
    ):
        database.notify("test_a", "opens the connection")
        await until(lambda: received)
        received.clear()
        private_postgres.freeze()
        database.notify("test_a", "in flight")
        await asyncio.sleep(0)  # lets the sender begin
        for _ in range(100):
            database.notify("test_a", "one")
            database.notify("test_a", "two")
        private_postgres.thaw()
        await until(lambda: len(received) >= 3)
        database.notify("test_a", "last")
        await until(lambda: ("test_a", "last") in received)
    assert received[0] == ("test_a", "in flight")
    assert sorted(received[1:3]) == [("test_a", "one"), ("test_a", "two")]
    assert received[3:] == [("test_a", "last")]


async def test_an_exhausted_pool_does_not_stop_notifications(database_url: str) -> None:
    """A notification needs no connection of the pool."""
    async with (
        build_database(settings(database_url, pool_size=1, max_overflow=0)) as database,
        listening(database, "test_a") as received,
        database.engine.connect(),
    ):
        database.notify("test_a", "")
        await until(lambda: received)


async def test_a_notification_without_a_server_is_dropped(
    private_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is away causes a log line at debug and nothing else; notifications work again when it is back."""
    caplog.set_level(logging.DEBUG)
    async with build_database(settings(private_postgres.url())) as database:
        async with listening(database, "test_a") as received:
            database.notify("test_a", "")
            await until(lambda: received)
        private_postgres.kill()
        database.notify("test_a", "")
        await until(lambda: "notification_failed" in caplog.messages)
        private_postgres.restart()
        async with listening(database, "test_a") as received:

            def ask() -> bool:
                loop.call_soon_threadsafe(database.notify, "test_a", "again")
                return bool(received)

            loop = asyncio.get_running_loop()
            await until(ask)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_closing_sends_the_last_request(database: Database, database_url: str) -> None:
    """A notification that was requested before the database is closed is sent, and its connection is closed."""
    async with listening(database, "test_a") as received:
        async with build_database(settings(database_url, application_name="test_closing")) as short:
            short.notify("test_a", "last")
        await until(lambda: received)
        async with database.sessions() as session:
            left = text("select count(*) from pg_stat_activity where application_name = 'test_closing'")
            assert await session.scalar(left) == 0


async def test_closing_does_not_wait_for_a_frozen_server(private_postgres: PostgresServer) -> None:
    """A notification that hangs is given up when the database is closed, long before its own timeout."""
    async with asyncio.timeout(30), build_database(settings(private_postgres.url())) as database:
        async with listening(database, "test_a") as received:
            database.notify("test_a", "")
            await until(lambda: received)
        private_postgres.freeze()
        database.notify("test_a", "")
    private_postgres.thaw()
    assert "database-notifications" not in {task.get_name() for task in asyncio.all_tasks()}


def test_each_event_loop_has_its_own_notifications(database_url: str) -> None:
    """A database whose loop has ended, even in the middle of a notification, notifies in the next loop."""
    database = build_database(settings(database_url))

    async def leave() -> None:
        database.notify("test_a", "never finished")
        await asyncio.sleep(0)

    async def use() -> None:
        async with database, listening(database, "test_a") as received:
            database.notify("test_a", "second loop")
            await until(lambda: ("test_a", "second loop") in received)

    asyncio.run(leave())
    asyncio.run(use())

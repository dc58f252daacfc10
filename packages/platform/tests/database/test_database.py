"""The engine, its pool and the unit of work, on a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError
from sqlalchemy import func, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_devstack.servers import PostgresServer
from tequipy_platform import Conflicted, SystemClock, Unavailable, retry_conflicts
from tequipy_platform._unit_of_work import CONFLICT_RETRIES
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork
from tequipy_platform.messaging.models import OutboxRow


def settings(url: str, **changes: object) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": SecretStr(url), **changes})


def unit_of_work(database: Database) -> SqlUnitOfWork:
    return SqlUnitOfWork(database, SystemClock(), uuid7)


async def outbox_rows(database: Database) -> int:
    async with database.sessions() as session:
        return await session.scalar(select(func.count()).select_from(OutboxRow)) or 0


@pytest.mark.parametrize("query", ["foo=1", "sslmode=require", "ssl=hunter2", "ssl=require&ssl=disable"])
def test_a_url_has_no_option_that_the_driver_does_not_know(query: str) -> None:
    """An unknown URL option is refused with the settings and not quoted, instead of breaking the first connection."""
    with pytest.raises(ValidationError, match="URL may have no option but ssl: disable, allow, ") as error:
        settings(f"postgresql+asyncpg://localhost/none?{query}")
    assert "hunter2" not in str(error.value)


async def test_a_url_may_say_how_tls_is_used(database_url: str) -> None:
    """The option `ssl` is used by the pool and by connections outside of it."""
    async with build_database(settings(f"{database_url}?ssl=prefer")) as database:
        await select_one(database)
        await database.ping()


async def test_a_session_has_the_configured_parameters(database: Database) -> None:
    """Statement timeout, idle timeout and application name of a session are those of the settings."""
    async with database.engine.connect() as connection:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "application_name")
        values = [await connection.scalar(text(f"show {name}")) for name in names]
    assert values == ["30s", "1min", "tequipy"]


async def test_behind_a_pooler_settings_are_per_transaction(database_url: str) -> None:
    """With `pgbouncer`, timeouts are set per transaction, and no statement is prepared."""
    async with build_database(settings(database_url, direct_url=database_url, pgbouncer=True)) as database:
        await database.ping()
        async with database.engine.connect() as connection:
            assert await connection.scalar(text("show statement_timeout")) == "30s"
            driver = (await connection.get_raw_connection()).driver_connection
            await connection.commit()
            assert driver is not None
            assert await driver.fetchval("show statement_timeout") == "0"
            for _ in range(3):
                await connection.execute(text("select 1"))
            assert await connection.scalar(text("select count(*) from pg_prepared_statements")) <= 1


async def test_a_block_has_committed_when_it_is_left(database: Database) -> None:
    """Rows written in the block are visible to others as soon as the block is left."""
    async with unit_of_work(database) as work:
        work.outbox.add("test.do")
    assert await outbox_rows(database) == 1


async def test_a_failed_block_is_rolled_back(database: Database) -> None:
    """An exception rolls back and reaches the caller."""

    async def fail() -> None:
        async with unit_of_work(database) as work:
            work.outbox.add("test.do")
            await work.session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await outbox_rows(database) == 0


async def test_a_commit_that_fails_is_an_error(database: Database) -> None:
    """Leaving a block raises if the commit fails."""
    same = uuid7()

    async def add_twice() -> None:
        async with SqlUnitOfWork(database, SystemClock(), lambda: same) as work:
            work.outbox.add("test.do")
            work.outbox.add("test.do")

    with pytest.raises(IntegrityError):
        await add_twice()
    assert await outbox_rows(database) == 0


async def test_a_cancelled_block_rolls_back_and_returns_its_connection(database: Database) -> None:
    """A block that is cancelled during a statement leaves neither rows nor a busy connection."""
    begun = asyncio.Event()

    async def work_long() -> None:
        async with unit_of_work(database) as work:
            work.outbox.add("test.do")
            await work.session.flush()
            begun.set()
            await work.session.execute(text("select pg_sleep(30)"))

    task = asyncio.create_task(work_long())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outbox_rows(database) == 0
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # -- the pool is a QueuePool


async def test_a_started_commit_finishes_despite_cancellation(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation during the commit waits for it: the caller is cancelled, and the rows are committed."""
    committing = asyncio.Event()
    commit = AsyncSession.commit

    async def slow_commit(session: AsyncSession) -> None:
        committing.set()
        await session.execute(text("select pg_sleep(0.2)"))
        await commit(session)

    monkeypatch.setattr(AsyncSession, "commit", slow_commit)

    async def write() -> None:
        async with unit_of_work(database) as work:
            work.outbox.add("test.do")

    task = asyncio.create_task(write())
    await committing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outbox_rows(database) == 1


async def test_an_exhausted_pool_is_unavailable(database_url: str) -> None:
    """If all connections stay busy for the pool's timeout, the caller gets `Unavailable`."""
    async with build_database(settings(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)) as database:
        async with database.engine.connect():
            with pytest.raises(Unavailable) as error:
                await outbox_add(database)
        assert error.value.retry_after >= 1
        await outbox_add(database)


async def outbox_add(database: Database) -> None:
    async with unit_of_work(database) as work:
        work.outbox.add("test.do")
        await work.session.flush()


async def test_a_killed_server_is_unavailable_until_it_is_back(private_postgres: PostgresServer) -> None:
    """A killed server causes `Unavailable` until it is back; no restart is needed."""
    async with build_database(settings(private_postgres.url("postgres"))) as database:
        await select_one(database)
        private_postgres.kill()
        for _ in range(2):  # a dead connection in the pool, and one that cannot be opened
            with pytest.raises(Unavailable):
                await select_one(database)
        with pytest.raises(OSError):  # noqa: PT011 -- the text depends on the operating system
            await database.ping()
        private_postgres.restart()
        await select_one(database)
        await database.ping()


async def test_a_server_without_a_free_connection_is_unavailable(
    database_url: str, postgres_server: PostgresServer
) -> None:
    """A server that accepts no further connection causes `Unavailable`."""
    role = f"narrow_{uuid4().hex}"
    postgres_server.execute(f"create role {role} login password 'narrow' connection limit 1")
    url = make_url(database_url).set(username=role, password="narrow").render_as_string(hide_password=False)
    try:
        async with build_database(settings(url)) as database, database.engine.connect():
            with pytest.raises(Unavailable):
                await select_one(database)
    finally:
        postgres_server.execute(f"drop role {role}")


async def test_a_connection_lost_within_the_block_is_unavailable(database: Database) -> None:
    """If the server closes the connection between two statements, the block raises `Unavailable`."""

    async def lose_connection() -> None:
        async with unit_of_work(database) as work:
            pid = await work.session.scalar(text("select pg_backend_pid()"))
            async with database.engine.connect() as other:
                await other.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
            await work.session.execute(text("select 1"))

    with pytest.raises(Unavailable):
        await lose_connection()
    await select_one(database)


async def select_one(database: Database) -> None:
    async with unit_of_work(database) as work:
        await work.session.execute(text("select 1"))


async def test_a_statement_over_its_time_is_unavailable(database_url: str) -> None:
    """A statement over the statement timeout raises `Unavailable`, and its connection can be used again."""
    async with build_database(settings(database_url, statement_timeout=0.2)) as database:
        with pytest.raises(Unavailable):
            await execute(database, "select pg_sleep(60)")
        await select_one(database)


async def test_a_server_that_refuses_the_password_is_unavailable(database_url: str) -> None:
    """A refused role or password raises `Unavailable`, because it is a fault of the configuration."""
    url = make_url(database_url).set(password="wrong").render_as_string(hide_password=False)
    async with build_database(settings(url)) as database:
        with pytest.raises(Unavailable):
            await select_one(database)


async def execute(database: Database, statement: str) -> None:
    async with unit_of_work(database) as work:
        await work.session.execute(text(statement))


async def test_a_frozen_server_delays_callers_by_one_ping_and_connect(private_postgres: PostgresServer) -> None:
    """A frozen server costs a caller one ping and one connection attempt, whatever the statement timeout."""
    changes = {"statement_timeout": 600, "connect_timeout": 1, "pool_size": 1, "max_overflow": 0}
    async with build_database(settings(private_postgres.url("postgres"), **changes)) as database:
        await select_one(database)
        private_postgres.freeze()
        try:
            async with asyncio.timeout(60):
                with pytest.raises(Unavailable):
                    await select_one(database)
        finally:
            private_postgres.thaw()
        await select_one(database)
        private_postgres.freeze()
        closing = asyncio.ensure_future(database.__aexit__(None, None, None))
        try:
            assert (await asyncio.wait({closing}, timeout=60))[0], "the pool is not closed while the server hangs"
            await closing
            assert all(connection.is_closed() for connection in database._opened)
        finally:
            private_postgres.thaw()


async def test_a_frozen_server_keeps_no_connection_busy(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen at a statement, at the commit, or during a cancellation: each block ends and returns its connection."""
    monkeypatch.setattr("tequipy_platform.database.engine.SETTLE_SECONDS", 0.5)
    changes = {"statement_timeout": 0.5, "pool_size": 1, "max_overflow": 0}
    async with build_database(settings(private_postgres.url("postgres"), **changes)) as database:
        for freeze_at in ("statement", "commit", "cancelled"):
            caller = asyncio.create_task(freeze_within(database, private_postgres, commit=freeze_at == "commit"))
            try:
                await asyncio.wait({caller}, timeout=0.5)
                if freeze_at == "cancelled":
                    caller.cancel()
                await asyncio.wait({caller}, timeout=60)
                with pytest.raises(asyncio.CancelledError if freeze_at == "cancelled" else Unavailable):
                    caller.result()
                assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # -- the pool is a QueuePool
            finally:
                private_postgres.thaw()
            await select_one(database)


async def freeze_within(database: Database, server: PostgresServer, *, commit: bool) -> None:
    """Freeze the server during a unit of work: before its commit, or before its last statement."""
    async with unit_of_work(database) as work:
        await work.session.execute(text("select 1"))
        server.freeze()
        if not commit:
            await work.session.execute(text("select 2"))


async def test_a_server_slower_than_the_ping_is_used(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no pooled connection answers the ping in time, a new one is used, however slow the server is."""
    monkeypatch.setattr("tequipy_platform.database.engine._PING_SECONDS", 0)
    for _ in range(3):
        await select_one(database)


class Account:
    """A service whose concurrent use cases conflict."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.attempts = 0
        self.both_read = asyncio.Barrier(2)

    async def create(self) -> None:
        """Create a table with two rows of 0."""
        await execute(self._database, "create table account (id int primary key, balance int not null)")
        await execute(self._database, "insert into account values (1, 0), (2, 0)")

    async def drop(self) -> None:
        """Drop the table, because other tests use the same database."""
        await execute(self._database, "drop table account")

    @retry_conflicts
    async def read_and_add(self) -> None:
        """Add one to a value read before; of two concurrent calls the server rolls one back (40001)."""
        self.attempts += 1
        async with unit_of_work(self._database) as work:
            await work.session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            balance = await work.session.scalar(text("select balance from account where id = 1"))
            if self.attempts <= 2:
                await self.both_read.wait()
            await work.session.execute(text("update account set balance = :new where id = 1"), {"new": balance + 1})

    @retry_conflicts
    async def add_to_both(self, first: int, second: int) -> None:
        """Add one to two rows; calls in opposite orders cause a deadlock, and the server rolls one back (40P01)."""
        self.attempts += 1
        attempt = self.attempts
        async with unit_of_work(self._database) as work:
            add = text("update account set balance = balance + 1 where id = :id")
            await work.session.execute(add, {"id": first})
            if attempt <= 2:
                await self.both_read.wait()
            await work.session.execute(add, {"id": second})

    @retry_conflicts
    async def lose(self) -> None:
        """Conflict at every attempt."""
        self.attempts += 1
        await execute(self._database, "do $$ begin raise serialization_failure; end $$")

    async def balances(self) -> list[int]:
        """Return the values of both rows."""
        async with self._database.sessions() as session:
            return list(await session.scalars(text("select balance from account order by id")))


@pytest.fixture
async def account(database: Database) -> AsyncIterator[Account]:
    account = Account(database)
    await account.create()
    yield account
    await account.drop()


async def test_a_serialisation_failure_is_retried(account: Account) -> None:
    """Of two concurrent updates of a row, the one that was rolled back is retried, and both take effect."""
    await asyncio.gather(account.read_and_add(), account.read_and_add())
    assert await account.balances() == [2, 0]
    assert account.attempts == 3


async def test_a_deadlock_is_retried(account: Account) -> None:
    """Of two deadlocked transactions, the one that was rolled back is retried, and both take effect."""
    await asyncio.gather(account.add_to_both(1, 2), account.add_to_both(2, 1))
    assert await account.balances() == [2, 2]
    assert account.attempts == 3


async def test_a_permanent_conflict_is_unavailable(account: Account) -> None:
    """After three retries the caller gets `Unavailable`."""
    with pytest.raises(Unavailable) as error:
        await account.lose()
    assert isinstance(error.value, Conflicted)
    assert account.attempts == 1 + CONFLICT_RETRIES


@pytest.mark.parametrize("connected", [False, True])
async def test_ping_can_be_abandoned_on_a_server_that_hangs(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    """A ping of a server that froze before or after the connection was made can be cancelled at once."""
    execute = asyncpg.Connection.execute

    async def freeze_first(connection: object, statement: str) -> str:
        private_postgres.freeze()
        answer: str = await execute(connection, statement)
        return answer

    async with build_database(settings(private_postgres.url("postgres"))) as database:
        await database.ping()
        try:
            if connected:
                monkeypatch.setattr(asyncpg.Connection, "execute", freeze_first)
            else:
                private_postgres.freeze()
            ping = asyncio.create_task(database.ping())
            await asyncio.wait({ping}, timeout=0.3)
            ping.cancel()
            started = time.monotonic()
            await asyncio.wait({ping})
            assert ping.cancelled()
            assert time.monotonic() - started < 2
        finally:
            private_postgres.thaw()


async def test_ping_needs_no_connection_of_the_pool(database_url: str) -> None:
    """An exhausted pool does not make the readiness check fail."""
    full = settings(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    async with build_database(full) as database, database.engine.connect():
        await database.ping()


async def test_a_direct_connection_is_notified_of_the_outbox(database: Database) -> None:
    """A committed statement on the outbox notifies listeners once; a rolled-back one does not."""
    notified: asyncio.Queue[str] = asyncio.Queue()
    async with database.direct_connection() as connection:
        await connection.add_listener("tequipy_outbox", lambda *_: notified.put_nowait("notified"))
        async with unit_of_work(database) as work:
            work.outbox.add("test.do")
            work.outbox.add("test.do")
        assert await asyncio.wait_for(notified.get(), 10) == "notified"
    assert notified.empty()


async def test_the_pool_is_measured(database_url: str) -> None:
    """`db_pool_*` show used and idle connections, and a scrape before the first use opens none."""
    registry = CollectorRegistry()
    async with build_database(settings(database_url, pool_size=1), registry=registry) as database:
        assert registry.get_sample_value("db_pool_in_use") == 0
        assert "engine" not in database.__dict__
        assert registry.get_sample_value("db_pool_limit") == 11
        async with database.engine.connect() as first, database.engine.connect() as second:
            await first.execute(text("select 1"))
            await second.execute(text("select 1"))
            assert registry.get_sample_value("db_pool_in_use") == 2
            assert registry.get_sample_value("db_pool_overflow") == 1
        assert registry.get_sample_value("db_pool_in_use") == 0
        assert registry.get_sample_value("db_pool_idle") == 1


async def test_errors_hide_parameters(database: Database) -> None:
    """Database errors do not quote the parameters of the statement."""

    async def fail() -> None:
        async with unit_of_work(database) as work:
            await work.session.execute(text("select 1 / 0 where :secret <> ''"), {"secret": "hunter2"})

    with pytest.raises(DBAPIError, match="division by zero") as error:
        await fail()
    assert "hunter2" not in str(error.value)

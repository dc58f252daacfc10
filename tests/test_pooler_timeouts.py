"""Transactions behind a real pgbouncer end when their client does nothing more, as they do on direct connections."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.processes import freeze_family
from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.tables import create_tables
from tequipy_platform import SystemClock
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork, build_unpublished_messages

from .pgbouncer import PGBOUNCER, Pgbouncer

pytestmark = [pytest.mark.prove, pytest.mark.skipif(PGBOUNCER is None, reason="apt-get install pgbouncer")]


async def begin_session(database: Database, stack: AsyncExitStack) -> None:
    session = await stack.enter_async_context(database.sessions())
    await session.execute(text("select 1"))


async def begin_second_transaction(database: Database, stack: AsyncExitStack) -> None:
    session = await stack.enter_async_context(database.sessions())
    await session.execute(text("select 1"))
    await session.commit()
    await session.execute(text("select 1"))


async def begin_work(database: Database, stack: AsyncExitStack) -> None:
    work = await stack.enter_async_context(SqlUnitOfWork(database, SystemClock(), uuid7))
    work.outbox.add("test.do")
    await work.session.flush()


async def begin_batch(database: Database, stack: AsyncExitStack) -> None:
    async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
        work.outbox.add("test.do")
    messages = build_unpublished_messages(database, redelivery=timedelta(minutes=5))
    batch = await stack.enter_async_context(messages.batch(1))
    assert len(batch.messages) == 1


async def begin_engine_transaction(database: Database, stack: AsyncExitStack) -> None:
    connection = await stack.enter_async_context(database.engine.connect())
    await connection.execute(text("select 1"))


async def begin_on_own_connection(database: Database, stack: AsyncExitStack) -> None:
    connection = await stack.enter_async_context(database.own_connection())
    await stack.enter_async_context(connection.transaction())


Begin = Callable[[Database, AsyncExitStack], Coroutine[Any, Any, None]]


@pytest.mark.quick
@pytest.mark.parametrize(
    "begin",
    [
        begin_session,
        begin_second_transaction,
        begin_work,
        begin_batch,
        begin_engine_transaction,
        begin_on_own_connection,
    ],
)
def test_an_idle_transaction_ends_through_pgbouncer(
    pgbouncer: Pgbouncer, postgres: PostgresServer, begin: Begin
) -> None:
    """Every kind of transaction whose client does nothing more is ended by the server, which frees its rows."""
    name = begin.__name__
    direct = postgres.create_database(name)
    create_tables(direct)
    settings = {"url": pgbouncer.url(name), "direct_url": direct, "pgbouncer": True, "idle_in_transaction_timeout": 1}

    def idle() -> int:
        states = postgres.execute("select datname, state from pg_stat_activity").splitlines()
        return states.count(f"{name}|idle in transaction")

    async def leave_idle() -> None:
        async with build_database(DatabaseSettings.model_validate(settings)) as database:
            stack = AsyncExitStack()
            await begin(database, stack)
            assert idle() == 1
            await asyncio.to_thread(eventually, "the server has ended it", lambda: idle() == 0)
            with suppress(Exception):  # the connection is lost
                await stack.aclose()

    asyncio.run(leave_idle())


@pytest.mark.parametrize("pooled", [pytest.param(True, id="pgbouncer"), pytest.param(False, id="direct")])
@pytest.mark.parametrize("seconds", [pytest.param(3, marks=pytest.mark.quick, id="short"), pytest.param(60, id="long")])
def test_a_frozen_relay_frees_its_rows(
    pgbouncer: Pgbouncer,
    postgres: PostgresServer,
    private_redis: ValkeyServer,
    mails: MailSink,
    tmp_path: Path,
    pooled: bool,
    seconds: int,
) -> None:
    """The rows of a relay that is stopped while it publishes are free after the idle timeout, for another relay."""
    name = f"frozen_{pooled}_{seconds}".lower()
    direct = postgres.create_database(name)
    deployment = Deployment(
        tmp_path,
        database_url=pgbouncer.url(name) if pooled else direct,
        redis=private_redis,
        mails=mails,
        TEQUIPY_DATABASE__PGBOUNCER=str(pooled).lower(),
        TEQUIPY_DATABASE__DIRECT_URL=direct,
        TEQUIPY_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT=str(seconds),
    )
    deployment.migrate()

    async def add() -> None:
        async with (
            build_database(DatabaseSettings(url=SecretStr(direct))) as database,
            SqlUnitOfWork(database, SystemClock(), uuid7) as work,
        ):
            work.outbox.add("platform.purge_messages")

    def is_free() -> bool:
        unlocked = "select id from platform.outbox for update skip locked"
        return bool(postgres.execute(unlocked, database=name).strip())

    def has_connected() -> bool:
        clients = "select 1 from pg_stat_activity where datname = '{}' and query like 'LISTEN%'"
        return bool(postgres.execute(clients.format(name)).strip())

    with deployment.relay() as relay:
        eventually("the relay listens", has_connected)
        private_redis.freeze()
        asyncio.run(add())
        eventually("the relay has taken the row", lambda: not is_free())
        (process,) = freeze_family(relay.pid)
        began = time.monotonic()
        assert not is_free()
        eventually("the row is free", is_free, within=90)
        print(
            f"\n{'behind pgbouncer' if pooled else 'direct'}: the row was free after {time.monotonic() - began:.1f} s"
        )
        process.resume()
        private_redis.thaw()
        eventually(
            "the relay has published it",
            lambda: postgres.execute(
                "select 1 from platform.outbox where published_at is not null", database=name
            ).strip(),
        )

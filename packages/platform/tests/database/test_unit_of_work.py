"""The unit of work on a real PostgreSQL: what a failed, cancelled or committed block leaves."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform import SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

from .work import outbox_rows, unit_of_work


async def test_a_block_has_committed_when_it_is_left(database: Database) -> None:
    """Rows written in the block are visible to others as soon as the block is left."""
    async with unit_of_work(database) as work:
        work.outbox.add("test.do")
    assert await outbox_rows(database) == 1


async def test_each_statement_of_an_autocommit_block_is_a_transaction(database: Database) -> None:
    """With `autocommit` two statements see different times of transactions; the next block is a transaction again."""
    times = []
    for autocommit in (False, True, False):
        async with SqlUnitOfWork(database, SystemClock(), uuid7, autocommit=autocommit) as work:
            times.append({await work.session.scalar(text("select transaction_timestamp()")) for _ in range(2)})
    assert [len(each) for each in times] == [1, 2, 1]


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

"""Transactions in conflict on a real PostgreSQL are retried."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from tequipy_platform import Conflicted, Unavailable, retry_conflicts
from tequipy_platform._unit_of_work import CONFLICT_RETRIES
from tequipy_platform.database import Database

from .work import execute, unit_of_work


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

"""Deletion in batches."""

import pytest
from sqlalchemy import func, insert, select, text

from tequipy_platform.database import Database, delete_batch, uuid7
from tequipy_platform.messaging.models import InboxRow


@pytest.mark.parametrize(
    "plan",
    ["hashagg hashjoin mergejoin material sort memoize indexscan indexonlyscan bitmapscan", ""],
    ids=["nested loops", "any"],
)
async def test_a_batch_has_no_more_rows_than_its_limit(database: Database, plan: str) -> None:
    """Whatever plan PostgreSQL chooses, the limit holds, and the next batch has the rest."""
    async with database.sessions.begin() as session:
        for _ in range(5):
            await session.execute(
                insert(InboxRow).values(message_id=uuid7(), handler="a", state="done", taken_at=func.now())
            )
    deleted = []
    for _ in range(4):
        async with database.sessions.begin() as session:
            for name in plan.split():
                await session.execute(text(f"set local enable_{name} = off"))
            deleted.append(await delete_batch(session, InboxRow, InboxRow.handler == "a", limit=2))
    assert deleted == [2, 2, 1, 0]


async def test_locked_rows_are_left(database: Database) -> None:
    """A row that another transaction has locked is skipped, and nothing waits for it."""
    ids = [uuid7() for _ in range(3)]
    async with database.sessions.begin() as session:
        for each in ids:
            await session.execute(
                insert(InboxRow).values(message_id=each, handler="a", state="done", taken_at=func.now())
            )
    async with database.sessions.begin() as holder, database.sessions.begin() as session:
        await holder.execute(select(InboxRow).where(InboxRow.message_id == ids[0]).with_for_update())
        assert await delete_batch(session, InboxRow, InboxRow.handler == "a", limit=5) == 2

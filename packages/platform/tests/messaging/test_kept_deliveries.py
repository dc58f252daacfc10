"""The purge keeps handled deliveries of messages that may be delivered again, in PostgreSQL and in the fake."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from sqlalchemy import insert, select, text

from tequipy_platform import Delivery
from tequipy_platform.database import Database
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log
from tequipy_platform.messaging.models import InboxRow, OutboxRow
from tequipy_platform.tasks import TASKS, build_handlers
from tequipy_platform.testing import CountingIds, FrozenClock, MemoryUnitOfWork

from .twins import MemoryTwin

DAY = timedelta(days=1)


async def test_a_dead_letter_keeps_its_deliveries(database: Database, clock: FrozenClock) -> None:
    """The inbox row of an old dead letter is kept, so that an effect it had is not repeated by a retry."""
    deliveries = {state: Delivery(uuid4(), "test.do") for state in ("dead", "failed", "done", "discarded")}
    ids = CountingIds()
    async with SqlUnitOfWork(database, clock, ids) as work:
        for state, delivery in deliveries.items():
            await work.inbox.take(delivery)
            settled = None if state == "failed" else datetime.now(UTC)
            values = {"id": delivery.id, "task": "test.do", "payload": {}, "state": state, "settled_at": settled}
            await work.session.execute(insert(OutboxRow).values(values | {"created_at": datetime.now(UTC)}))
        await work.session.execute(text("update platform.inbox set taken_at = now() - interval '60 days'"))
    unit_of_work = partial(SqlUnitOfWork, database, clock, ids)
    (task,), handlers = TASKS, build_handlers(build_message_log(database), unit_of_work)
    await handlers[task](Delivery(uuid4(), task.name))
    async with database.sessions() as session:
        kept = set(await session.scalars(select(InboxRow.message_id)))
    assert kept == {deliveries["dead"].id, deliveries["failed"].id}
    async with SqlUnitOfWork(database, clock, ids) as work:
        assert not await work.inbox.take(deliveries["dead"])


async def test_the_fake_purges_handled_deliveries() -> None:
    """A delivery without a message is forgotten after the age of the inbox."""
    twin = MemoryTwin()
    work, delivery = MemoryUnitOfWork(twin.clock, twin.messages), Delivery(uuid4(), "test.do")
    taken = []
    for days in (0, 29, 2):
        await twin.advance(days * DAY)
        await twin.log.purge_messages(outbox_age=7 * DAY, dead_letter_age=90 * DAY, inbox_age=30 * DAY, batch_size=2)
        async with work:
            taken.append(await work.inbox.take(delivery))
    assert taken == [True, False, True]


async def test_the_fake_keeps_the_deliveries_of_a_dead_letter() -> None:
    """The fake forgets a delivery after the age of the inbox, but not while its message is a dead letter."""
    twin = MemoryTwin()
    taken = []
    for state in ("dead", "done"):
        row_id = await twin.add()
        work, delivery = MemoryUnitOfWork(twin.clock, twin.messages), Delivery(row_id, "test.do")
        async with work:
            await work.inbox.take(delivery)
        await twin.advance(60 * DAY)
        await twin.change(row_id, state=state, settled_at=await twin.now())
        await twin.log.purge_messages(outbox_age=7 * DAY, dead_letter_age=90 * DAY, inbox_age=30 * DAY, batch_size=2)
        async with work:
            taken.append(await work.inbox.take(delivery))
    assert taken == [False, True]

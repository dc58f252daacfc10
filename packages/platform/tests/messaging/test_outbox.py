"""Outbox and inbox: one contract suite for PostgreSQL and the fakes, and tests of PostgreSQL alone."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text

from tequipy_observability import RequestContext, request_context
from tequipy_platform import Delivery, Event, Lease, UnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log
from tequipy_platform.messaging.models import InboxRow, OutboxRow
from tequipy_platform.tasks import TASKS, build_handlers
from tequipy_platform.testing import EPOCH, AddedTask, CountingIds, FrozenClock, MemoryUnitOfWork

MINUTE = timedelta(minutes=1)
NewWork = Callable[[], UnitOfWork]


@pytest.fixture
def sql_work(database: Database, clock: FrozenClock) -> Callable[[], SqlUnitOfWork]:
    ids = CountingIds()
    return lambda: SqlUnitOfWork(database, clock, ids)


@pytest.fixture(params=["postgres", "memory"])
def new_work(request: pytest.FixtureRequest, clock: FrozenClock) -> NewWork:
    if request.param == "postgres":
        work: NewWork = request.getfixturevalue("sql_work")
        return work
    memory = MemoryUnitOfWork(clock)
    return lambda: memory


@pytest.fixture
def delivery() -> Delivery:
    return Delivery(uuid4(), "test.do")


async def lease(new_work: NewWork, delivery: Delivery) -> Lease:
    async with new_work() as work:
        return await work.inbox.lease(delivery, MINUTE)


async def test_a_delivery_is_taken_once(new_work: NewWork, delivery: Delivery) -> None:
    """The second delivery of a message is refused; its delivery to another task is not."""
    for expected in (True, False):
        async with new_work() as work:
            assert await work.inbox.take(delivery) is expected
    async with new_work() as work:
        assert await work.inbox.take(Delivery(delivery.id, "test.other"))


async def test_a_rolled_back_claim_does_not_count(new_work: NewWork, delivery: Delivery) -> None:
    """When the effect is rolled back, so is the claim, and the next delivery counts as the first."""

    async def fail() -> None:
        async with new_work() as work:
            await work.inbox.take(delivery)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with new_work() as work:
        assert await work.inbox.take(delivery)


async def test_a_lease_excludes_others_until_it_expires(
    new_work: NewWork, delivery: Delivery, clock: FrozenClock
) -> None:
    """A second attempt finds the lease held until it expires; then the effect may be repeated."""
    assert await lease(new_work, delivery) is Lease.TAKEN
    clock.advance(MINUTE - timedelta(seconds=1))
    assert await lease(new_work, delivery) is Lease.HELD
    clock.advance(timedelta(seconds=1))
    assert await lease(new_work, delivery) is Lease.TAKEN
    assert await lease(new_work, delivery) is Lease.HELD


async def test_done_is_permanent(new_work: NewWork, delivery: Delivery, clock: FrozenClock) -> None:
    """After `done` no attempt gets a lease, and `release` changes nothing."""
    await lease(new_work, delivery)
    async with new_work() as work:
        await work.inbox.done(delivery)
    async with new_work() as work:
        await work.inbox.release(delivery)
    clock.advance(2 * MINUTE)
    assert await lease(new_work, delivery) is Lease.DONE


async def test_a_released_lease_is_free(new_work: NewWork, delivery: Delivery) -> None:
    """After `release` the next attempt need not wait."""
    await lease(new_work, delivery)
    async with new_work() as work:
        await work.inbox.release(delivery)
    assert await lease(new_work, delivery) is Lease.TAKEN


async def test_of_concurrent_deliveries_one_is_taken(sql_work: Callable[[], SqlUnitOfWork], delivery: Delivery) -> None:
    """Of ten concurrent deliveries one gets the claim, and likewise one gets the lease."""

    async def take() -> bool:
        async with sql_work() as work:
            return await work.inbox.take(delivery)

    assert sorted(await asyncio.gather(*(take() for _ in range(10)))) == [False] * 9 + [True]
    other = Delivery(uuid4(), "test.do")
    leases = await asyncio.gather(*(lease(sql_work, other) for _ in range(10)))
    assert leases.count(Lease.TAKEN) == 1
    assert leases.count(Lease.HELD) == 9


async def test_a_row_contains_the_data_of_the_message(
    sql_work: Callable[[], SqlUnitOfWork], database: Database, clock: FrozenClock
) -> None:
    """A task's row has payload, earliest time and request context; an event's row has its name."""
    context = RequestContext(correlation_id="abc", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    with request_context(context):
        async with sql_work() as work:
            work.outbox.add("test.do", not_before=EPOCH + MINUTE, subject="Ann", nested={"n": [1, None]})
            work.outbox.publish(Event("test.done", {"id": 1}))
    async with database.sessions() as session:
        task, event = (await session.scalars(select(OutboxRow).order_by(OutboxRow.id))).all()
    assert (task.task, task.event, event.task, event.event) == ("test.do", None, None, "test.done")
    assert (task.payload, event.payload) == ({"subject": "Ann", "nested": {"n": [1, None]}}, {"id": 1})
    assert task.not_before == EPOCH + MINUTE
    for row in (task, event):
        assert (row.correlation_id, row.traceparent) == (context.correlation_id, context.traceparent)
        assert (row.created_at, row.published_at, row.state) == (clock.now(), None, "pending")


async def test_the_recording_outbox_drops_rolled_back_messages(clock: FrozenClock) -> None:
    """The fake holds committed messages only."""
    work = MemoryUnitOfWork(clock)

    async def fail() -> None:
        async with work:
            work.outbox.add("test.undo")
            work.outbox.publish(Event("test.undone"))
            raise LookupError

    async with work:
        work.outbox.add("test.do", a=1)
    with pytest.raises(LookupError):
        await fail()
    assert (work.outbox.tasks, work.outbox.events) == ([AddedTask("test.do", {"a": 1})], [])


AGED = (
    # Seven rows in each table, five of them old.
    "update platform.outbox set state = 'done', settled_at = now() - interval '1 day'",
    "update platform.outbox set settled_at = now() - interval '8 days' where (payload ->> 'number')::int < 5",
    "update platform.inbox set taken_at = now()",
    "update platform.inbox set taken_at = now() - interval '31 days' where handler < 'test.5'",
)


async def test_old_messages_are_purged_in_batches(
    sql_work: Callable[[], SqlUnitOfWork], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hourly task deletes all old rows in batches, and no young or unpublished ones."""
    async with sql_work() as work:
        for number in range(7):
            work.outbox.add("test.do", number=number)
            await work.inbox.take(Delivery(uuid4(), f"test.{number}"))
        await work.session.flush()
        for statement in AGED:
            await work.session.execute(text(statement))
        work.outbox.add("test.waiting")
    (task,), handlers = TASKS, build_handlers(build_message_log(database), sql_work)
    assert (task.name, task.every) == ("platform.purge_messages", timedelta(hours=1))
    monkeypatch.setattr("tequipy_platform.tasks.BATCH_SIZE", 2)
    await handlers[task](Delivery(uuid4(), task.name))
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(OutboxRow)) == 3
        assert await session.scalar(select(func.count()).select_from(InboxRow)) == 2

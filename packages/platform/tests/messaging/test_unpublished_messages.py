"""The outbox as the relay reads it: one contract suite for PostgreSQL and the fake, and tests of PostgreSQL alone."""

import asyncio
import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tequipy_platform.database import Database
from tequipy_platform.database.ids import derived_id

from .twins import HOUR, MINUTE, REDELIVERY, SqlTwin, Twin

SECOND = timedelta(seconds=1)
SUBSCRIBERS = {"test.done": ["test.do", "test.mail"]}


async def event(twin: Twin, name: str = "test.done", **columns: Any) -> UUID:
    """Store an event."""
    return await twin.add(None, event=name, **columns)


async def receive(twin: Twin, row_id: UUID) -> None:
    """Begin an attempt and record its success."""
    attempt = await twin.log.begin(row_id, "host:1")
    assert attempt
    await twin.log.succeed(attempt)


async def test_an_event_becomes_a_message_for_each_subscriber(twin: Twin) -> None:
    """Each message has the event's data and an id of its own, and the event is done."""
    row_id = await event(twin, payload={"a": 1}, producer_version="1.0", correlation_id="c", traceparent="t")
    assert await twin.relay.fan_out(SUBSCRIBERS, 100) == 1
    assert await twin.relay.fan_out(SUBSCRIBERS, 100) == 0
    assert (await twin.row(row_id)).state == "done"
    children = {row.task: row for row in await twin.rows() if row.task}
    assert {task: row.id for task, row in children.items()} == {
        task: derived_id(row_id, task) for task in SUBSCRIBERS["test.done"]
    }
    for row in children.values():
        assert (row.payload, row.producer_version, row.state) == ({"a": 1}, "1.0", "pending")
        assert (row.correlation_id, row.traceparent) == ("c", "t")
    assert set(await twin.publish()) == {row.id for row in children.values()}
    queues = {row.task: row.queue for row in await twin.rows() if row.task}
    assert queues == {"test.do": "default", "test.mail": "email"}


@pytest.mark.parametrize(
    ("producer", "relay"), [("1.0", "1.0"), ("1.0", "1.1"), ("1.9", "1.10"), (None, "1.0"), ("1.0", None), (None, None)]
)
async def test_an_event_without_subscribers_is_done(
    twin: Twin, producer: str | None, relay: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A relay that is at least as new as the producer settles such an event at once, without a word."""
    row_id = await event(twin, producer_version=producer)
    twin.release(relay)
    assert await twin.relay.fan_out({}, 100) == 1
    row = await twin.row(row_id)
    assert (row.state, row.settled_at is not None) == ("done", True)
    assert caplog.records == []


@pytest.mark.parametrize(("producer", "relay"), [("1.1", "1.0"), ("1.10", "1.9"), ("4f2a", "e7b0"), ("1.0", "e7b0")])
@pytest.mark.parametrize("subscribers", [{}, SUBSCRIBERS], ids=["none", "two"])
async def test_an_event_of_a_newer_producer_waits_an_hour(
    twin: Twin,
    producer: str,
    relay: str,
    subscribers: dict[str, list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its known subscribers get it at once and once; after an hour it is a dead letter if it has none, and logged."""
    row_id = await event(twin, producer_version=producer)
    twin.release(relay)
    for _ in range(2):
        assert await twin.relay.fan_out(subscribers, 100) == 1
        assert await twin.relay.fan_out(subscribers, 100) == 0
        assert (await twin.row(row_id)).state == "pending"
        assert len(await twin.rows()) == 1 + len(subscribers.get("test.done", []))
        assert caplog.records == []
        await twin.advance(MINUTE)
    await twin.advance(HOUR)
    assert await twin.relay.fan_out(subscribers, 100) == 1
    assert (await twin.row(row_id)).state == ("done" if subscribers else "dead")
    (record,) = caplog.records
    level = logging.WARNING if subscribers else logging.ERROR
    assert (record.levelno, vars(record)["message_id"]) == (level, str(row_id))
    assert await twin.relay.fan_out(subscribers, 100) == 0


async def test_a_newer_relay_completes_a_waiting_event(twin: Twin) -> None:
    """A relay of the producer's release adds the subscribers that the older one did not know."""
    row_id = await event(twin, producer_version="1.1")
    twin.release("1.0")
    await twin.relay.fan_out({"test.done": ["test.do"]}, 100)
    await twin.advance(10 * SECOND)
    twin.release("1.1")
    await twin.relay.fan_out(SUBSCRIBERS, 100)
    assert (await twin.row(row_id)).state == "done"
    assert sorted(row.task or "" for row in await twin.rows()) == ["", "test.do", "test.mail"]


async def test_new_messages_go_before_missed_ones(twin: Twin) -> None:
    """Due messages come first, oldest first, then lost attempts, then messages that left their queue."""
    left, lost, marker = [await twin.add() for _ in range(3)]
    await twin.publish()
    await twin.log.begin(lost, "host:1")
    await twin.advance(REDELIVERY)
    await twin.change(marker, published_at=await twin.now())
    await receive(twin, marker)
    new = [await twin.add() for _ in range(2)]
    await twin.advance(SECOND)
    assert await twin.publish(limit=1) == new[:1]
    assert await twin.publish() == [*new[1:], lost, left]


async def test_a_delayed_message_is_not_due(twin: Twin) -> None:
    """A message is published when its time has come."""
    row_id = await twin.add(not_before=await twin.now() + MINUTE)
    assert await twin.publish() == []
    assert await twin.log.begin(row_id, "host:1") is None
    await twin.advance(MINUTE)
    assert await twin.publish() == [row_id]


async def test_messages_that_only_wait_are_probed_one_by_one(twin: Twin) -> None:
    """Of late messages of which none was received, one is published again at a time, and at most every 30 s."""
    first, second, _ = [await twin.add() for _ in range(3)]
    await twin.publish()
    for number, row_id in enumerate((first, second, _)):
        await twin.change(row_id, published_at=await twin.now() + number * timedelta(milliseconds=1))
    assert await twin.publish() == []
    await twin.advance(REDELIVERY)
    assert await twin.publish() == [first]
    assert await twin.publish() == []
    await twin.advance(31 * SECOND)
    assert await twin.publish() == [second]


async def test_messages_that_left_their_queue_are_published_again(twin: Twin) -> None:
    """Once a later message of a queue was received, its earlier late ones are missed, and those of no other queue."""
    lost, other = await twin.add(), await twin.add("test.mail")
    await twin.publish()
    await twin.advance(REDELIVERY - 10 * SECOND)
    later = await twin.add()
    assert await twin.publish() == [later]
    await twin.advance(10 * SECOND)
    assert await twin.publish() == [other], "a probe of the other queue"
    assert await twin.publish() == []
    await receive(twin, later)
    assert await twin.publish() == [lost]
    assert await twin.publish() == []


@pytest.mark.parametrize("how", ["retried", "handed back"])
async def test_only_what_was_received_shows_what_is_missed(twin: Twin, how: str) -> None:
    """A message in the queue for the second time does not show that earlier ones have left the queue."""
    waiting, other = await twin.add(), await twin.add()
    await twin.publish()
    await twin.change(waiting, published_at=await twin.now())
    attempt = await twin.log.begin(other, "host:1")
    assert attempt
    await twin.advance(REDELIVERY - 10 * SECOND)
    later = await twin.add()
    assert await twin.publish() == [later]
    await twin.advance(10 * SECOND)
    if how == "retried":
        await twin.log.fail(attempt, "Error: no", retry_in=timedelta(0))
        assert await twin.publish() == [other]
    else:
        await twin.log.hand_back(attempt)
    assert await twin.publish() == []
    assert (await twin.row(waiting)).publications == 1, "it waits in the queue"


async def test_each_publication_doubles_the_wait_for_the_next(twin: Twin) -> None:
    """A message in a long queue lengthens it less and less."""
    row_id, waits = await twin.add(), []
    for _ in range(8):
        assert await twin.publish() == [row_id]
        row = await twin.row(row_id)
        assert row.redeliver_at
        assert row.published_at
        waits.append((row.redeliver_at - row.published_at) / REDELIVERY)
        await twin.advance(row.redeliver_at - row.published_at)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64]


async def test_a_refused_message_stops_no_other(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    """A refused message is due again later, and after an hour a dead letter, while others are published."""
    refused, other = await twin.add(), await twin.add()
    assert await twin.publish(refuse={refused: "too large"}) == [refused, other]
    assert (await twin.row(other)).state == "published"
    times = 1
    while (row := await twin.row(refused)).state != "dead":
        assert (row.state, row.error, row.published_at) == ("failed", "too large", None)
        await twin.advance(row.not_before - await twin.now() + SECOND)
        assert refused in await twin.publish(refuse={refused: "too large"})
        times += 1
        assert times < 100
    assert row.settled_at
    assert row.waiting_since
    assert HOUR <= row.settled_at - row.waiting_since < HOUR + 2 * MINUTE
    assert [vars(record)["message_id"] for record in caplog.records if record.levelno == logging.ERROR] == [
        str(refused)
    ]


async def test_a_lost_attempt_whose_message_is_refused_still_counts(twin: Twin) -> None:
    """The death of its process is counted when the message gets through later."""
    row_id = await twin.add()
    await twin.publish()
    await twin.log.begin(row_id, "host:1")
    await twin.advance(REDELIVERY)
    assert await twin.publish(refuse={row_id: "no"}) == [row_id]
    assert await twin.publish() == []
    assert (await twin.row(row_id)).state == "running"
    await twin.advance(MINUTE)
    assert await twin.publish() == [row_id]
    attempt = await twin.log.begin(row_id, "host:1")
    assert attempt
    assert attempt.deaths == 1


async def test_a_batch_that_is_interrupted_is_released(twin: Twin) -> None:
    """Leaving a batch by an exception stores nothing, and the next batch has the same messages."""
    row_id = await twin.add()
    with pytest.raises(ConnectionError):
        await interrupt(twin)
    assert (await twin.row(row_id)).state == "pending"
    assert await twin.publish() == [row_id]


async def interrupt(twin: Twin) -> None:
    async with twin.relay.batch(100) as batch:
        batch.published.update(message.id for message in batch.messages)
        raise ConnectionError


async def test_locked_messages_are_skipped(twin: Twin) -> None:
    """Of two relays each has its own messages, and a message without a result stays due."""
    first, second = await twin.add(), await twin.add()
    async with twin.relay.batch(1) as batch:
        assert [message.id for message in batch.messages] == [first]
        assert await twin.publish() == [second]
    assert await twin.publish() == [first]


async def test_an_attempt_waits_for_the_relay(twin: Twin) -> None:
    """An attempt at a message whose publication is not recorded yet begins after the relay has recorded it."""
    row_id = await twin.add()
    async with twin.relay.batch(1) as batch:
        beginning = asyncio.create_task(twin.log.begin(row_id, "host:1"))
        await asyncio.wait({beginning}, timeout=0.2)
        assert not beginning.done()
        batch.published.add(row_id)
    attempt = await beginning
    assert attempt
    assert (attempt.number, attempt.after_death, (await twin.row(row_id)).state) == (1, False, "running")


async def test_two_relays_fan_out_an_event_once(database: Database) -> None:
    """Of many relays that fan out the same events, each event is taken by one, and each message exists once."""
    twin = SqlTwin(database)
    for _ in range(20):
        await event(twin)
    counts = await asyncio.gather(*(twin.relay.fan_out(SUBSCRIBERS, 5) for _ in range(8)))
    while counts[-1]:
        counts.append(await twin.relay.fan_out(SUBSCRIBERS, 5))
    assert sum(counts) == 20
    rows = await twin.rows()
    assert (len(rows), sum(row.task is not None for row in rows)) == (60, 40)

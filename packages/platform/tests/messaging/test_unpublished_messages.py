"""The outbox as the relay reads it: one contract suite for PostgreSQL and the fake, and tests of PostgreSQL alone."""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

import pytest

from .twins import HOUR, MINUTE, REDELIVERY, Twin

SECOND = timedelta(seconds=1)


async def receive(twin: Twin, row_id: UUID) -> None:
    """Begin an attempt and record its success."""
    attempt = await twin.log.begin(row_id, "host:1")
    assert attempt
    await twin.log.succeed(attempt)


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


async def test_messages_of_one_moment_are_published_in_the_order_of_their_ids(twin: Twin) -> None:
    """Messages of one batch have equal times, and are published again in the order in which they were added."""
    first, second = [await twin.add() for _ in range(2)]
    await twin.publish()
    at = await twin.now()
    for row_id in (second, first):  # the row that was written last is read last without an order by id
        await twin.change(row_id, published_at=at)
    await twin.advance(2 * HOUR)
    assert await twin.publish(limit=1) == [first]


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


async def test_a_message_without_a_recorded_publication_is_missed_too(twin: Twin) -> None:
    """A message that a dead relay had published, that was handed back and then lost, is published again."""
    row_id = await twin.add()
    attempt = await twin.log.begin(row_id, "host:1")
    assert attempt
    await twin.log.hand_back(attempt)
    assert await twin.publish() == []
    await twin.advance(REDELIVERY)
    assert await twin.publish() == [row_id]
    assert (await twin.row(row_id)).queue == "default"


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

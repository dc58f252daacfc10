"""Events that become messages: one contract suite for PostgreSQL and the fake, and a test of PostgreSQL alone."""

import asyncio
import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tequipy_platform.database import Database
from tequipy_platform.database.ids import derived_id

from .twins import HOUR, MINUTE, SqlTwin, Twin

SECOND = timedelta(seconds=1)
SUBSCRIBERS = {"test.done": ["test.do", "test.mail"]}


async def event(twin: Twin, name: str = "test.done", **columns: Any) -> UUID:
    """Store an event."""
    return await twin.add(None, event=name, **columns)


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


async def test_events_that_wait_for_a_newer_relay_stop_no_other(twin: Twin) -> None:
    """Before it looks again at more waiting events than fit into a batch, a relay fans out the new ones."""
    twin.release("1.0")
    for _ in range(4):
        await event(twin, producer_version="1.1")
    await twin.relay.fan_out(SUBSCRIBERS, 4)
    await twin.advance(MINUTE)
    new = await event(twin, producer_version="1.0")
    assert await twin.relay.fan_out(SUBSCRIBERS, 2) == 2
    assert (await twin.row(new)).state == "done"


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

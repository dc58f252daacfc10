"""Messages as operators see them: found by each condition, shown with their attempts, retried and discarded."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select, text

from tequipy_platform import MessageState, NotFound, Unavailable
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import MessageInspection, MessageQuery, build_message_inspection, build_message_log
from tequipy_platform.messaging.models import OUTBOX_CHANNEL, OutboxRow

QUEUES = {"test.note": "default", "test.mail": "email"}
HOUR = timedelta(hours=1)
ROWS: dict[str, dict[str, Any]] = {
    "waiting mail": {"task": "test.mail", "state": "pending"},
    "mail in the broker": {"task": "test.mail", "state": "published", "queue": "email", "correlation_id": "abc"},
    "running note": {"task": "test.note", "state": "running", "queue": "default", "created": -5 * HOUR},
    "failed note": {"task": "test.note", "state": "failed", "queue": "old", "correlation_id": "abc"},
    "done note": {"task": "test.note", "state": "done", "queue": "default", "settled": -HOUR},
    "event": {"event": "test.noted", "state": "pending"},
    "dead event": {"event": "test.noted", "state": "dead", "settled": -2 * HOUR},
    "dead mail": {"task": "test.mail", "state": "dead", "queue": "email", "settled": -3 * HOUR, "created": -9 * HOUR},
    "dead note": {"task": "test.note", "state": "dead", "queue": "default", "settled": -HOUR, "correlation_id": "abc"},
    "foreign": {"task": "tequipy.foreign", "state": "dead", "queue": "default", "settled": -4 * HOUR},
    "discarded": {"task": "test.note", "state": "discarded", "queue": "default", "settled": -HOUR},
}


@pytest.fixture
def inspection(database: Database) -> MessageInspection:
    return build_message_inspection(database, queues=QUEUES)


@pytest.fixture
async def rows(database: Database) -> dict[str, UUID]:
    """Return the ids of `ROWS`, of which later ones are newer, by their names."""
    ids = {}
    async with database.sessions.begin() as session:
        for name, row in ROWS.items():
            ids[name] = uuid7()
            columns = {key: value for key, value in row.items() if key not in {"created", "settled"}}
            now = datetime.now(UTC)
            times = {"created_at": now + row.get("created", timedelta(0))}
            if "settled" in row:
                times["settled_at"] = now + row["settled"]
            values: dict[str, Any] = {"id": ids[name], "payload": {"of": name}, "attempts": 3, "failed_attempts": 3}
            await session.execute(insert(OutboxRow).values(values | columns | times))
    return ids


async def state_of(database: Database, row_id: UUID) -> OutboxRow:
    async with database.sessions() as session:
        return await session.get_one(OutboxRow, row_id)


async def states(database: Database, rows: dict[str, UUID]) -> dict[str, str]:
    """Return the states of all rows that have another state than in `ROWS`, by their names."""
    async with database.sessions() as session:
        found = dict((await session.execute(select(OutboxRow.id, OutboxRow.state))).all())
    return {name: found[row_id] for name, row_id in rows.items() if found[row_id] != ROWS[name]["state"]}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (MessageQuery(), [*reversed(ROWS)]),
        (MessageQuery(correlation_id="abc"), ["dead note", "failed note", "mail in the broker"]),
        (MessageQuery(task="test.mail"), ["dead mail", "mail in the broker", "waiting mail"]),
        (MessageQuery(task="test.noted"), ["dead event", "event"]),
        (MessageQuery(state=MessageState.PENDING), ["event", "waiting mail"]),
        (MessageQuery(state=MessageState.PUBLISHED), ["mail in the broker"]),
        (MessageQuery(state=MessageState.RUNNING), ["running note"]),
        (MessageQuery(state=MessageState.FAILED), ["failed note"]),
        (MessageQuery(state=MessageState.DONE), ["done note"]),
        (MessageQuery(state=MessageState.DEAD), ["dead note", "dead event", "dead mail", "foreign"]),
        (MessageQuery(state=MessageState.DISCARDED), ["discarded"]),
        (MessageQuery(queue="email"), ["mail in the broker", "waiting mail", "dead mail"]),
        (MessageQuery(queue="old"), ["failed note"]),
        (MessageQuery(older_than=4 * HOUR), ["running note", "dead mail"]),
        (MessageQuery(state=MessageState.DEAD, older_than=2.5 * HOUR), ["dead mail", "foreign"]),
        (MessageQuery(state=MessageState.DEAD, newer_than=1.5 * HOUR), ["dead note"]),
        (MessageQuery(state=MessageState.DEAD, older_than=1.5 * HOUR, newer_than=2.5 * HOUR), ["dead event"]),
        (MessageQuery(task="test.note", correlation_id="abc", state=MessageState.DEAD), ["dead note"]),
        (MessageQuery(task="test.none"), []),
    ],
)
async def test_messages_are_found_by_each_condition(
    inspection: MessageInspection, rows: dict[str, UUID], query: MessageQuery, expected: list[str]
) -> None:
    """All conditions hold together; the newest message comes first, and the last dead letter."""
    names = {row_id: name for name, row_id in rows.items()}
    found = [names[message.id] for message in await inspection.find(query, limit=50)]
    assert found == expected
    assert [names[message.id] for message in await inspection.find(query, limit=2)] == expected[:2]


async def test_a_waiting_message_has_the_queue_of_its_task(
    inspection: MessageInspection, rows: dict[str, UUID]
) -> None:
    """Before its publication a message is listed under the queue of the catalogue; an event has none."""
    (mail,) = await inspection.find(MessageQuery(ids=(rows["waiting mail"],)), limit=1)
    (event,) = await inspection.find(MessageQuery(ids=(rows["event"],)), limit=1)
    assert (mail.queue, event.queue) == ("email", None)


async def test_a_message_is_shown_with_its_attempts(database: Database, inspection: MessageInspection) -> None:
    """Each attempt has a number, times, place and error: a failed one, one whose process died, and the last one."""
    log, row_id = build_message_log(database), uuid7()
    async with database.sessions.begin() as session:
        row = {"id": row_id, "task": "test.note", "state": "published", "queue": "default", "producer_version": "1.2"}
        await session.execute(
            insert(OutboxRow).values(row | {"payload": {"word": "a"}, "created_at": datetime.now(UTC)})
        )
    first = await log.begin(row_id, "host-1:11")
    assert first
    await log.fail(first, "LookupError: no", retry_in=timedelta(0))
    await log.begin(row_id, "host-2:22")
    running = await log.begin(row_id, "host-3:33", redelivered=True)
    assert running
    seen = await inspection.get(row_id)
    assert [(each.number, each.worker, each.error) for each in seen.attempts] == [
        (1, "host-1:11", "LookupError: no"),
        (2, "host-2:22", "the process of this attempt ended without an outcome"),
        (3, "host-3:33", None),
    ]
    assert [each.ended_at is not None for each in seen.attempts] == [True, False, False]
    assert (seen.message.state, seen.message.producer_version, seen.payload) == ("running", "1.2", {"word": "a"})
    await log.succeed(running)
    seen = await inspection.get(row_id)
    assert (seen.message.state, seen.attempts[-1].ended_at) == ("done", seen.message.settled_at)
    with pytest.raises(NotFound):
        await inspection.get(uuid7())


async def test_a_retried_dead_letter_starts_again(
    database: Database, inspection: MessageInspection, rows: dict[str, UUID]
) -> None:
    """It is due at once with all attempts of its policy; its attempts go on counting, and repeating changes nothing."""
    query = MessageQuery(ids=(rows["dead note"], rows["running note"]))
    assert (await inspection.retry(query)).changed == {"test.note": 1}
    row = await state_of(database, rows["dead note"])
    assert (row.state, row.attempts, row.failed_attempts, row.deaths) == ("pending", 3, 0, 0)
    assert (row.settled_at, row.published_at, row.failing_since, row.waiting_since) == (None, None, None, None)
    assert row.not_before <= datetime.now(UTC)
    assert (await inspection.retry(query)).changed == {}
    assert await states(database, rows) == {"dead note": "pending"}


@pytest.mark.parametrize(
    ("query", "retried", "foreign"),
    [
        (MessageQuery(), ["dead event", "dead mail", "dead note"], 1),
        (MessageQuery(task="test.noted"), ["dead event"], 0),
        (MessageQuery(correlation_id="abc"), ["dead note"], 0),
        (MessageQuery(older_than=2.5 * HOUR), ["dead mail"], 1),
        (MessageQuery(task="tequipy.foreign"), [], 1),
    ],
)
async def test_only_matching_dead_letters_are_retried(
    database: Database,
    inspection: MessageInspection,
    rows: dict[str, UUID],
    query: MessageQuery,
    retried: list[str],
    foreign: int,
) -> None:
    """No other message changes, and one that is not from the outbox is counted and left."""
    repair = await inspection.retry(query)
    assert await states(database, rows) == dict.fromkeys(retried, "pending")
    assert (sum(repair.changed.values()), repair.foreign) == (len(retried), foreign)


async def test_dead_letters_are_discarded(
    database: Database, inspection: MessageInspection, rows: dict[str, UUID]
) -> None:
    """Discarding gives up dead letters, foreign ones included, and changes nothing else, nor anything again."""
    repair = await inspection.discard(MessageQuery(newer_than=6 * HOUR))
    assert repair.changed == {"test.mail": 1, "test.note": 1, "test.noted": 1, "tequipy.foreign": 1}
    dead = ["dead event", "dead mail", "dead note", "foreign"]
    assert await states(database, rows) == dict.fromkeys(dead, "discarded")
    settled = (await state_of(database, rows["dead mail"])).settled_at
    assert settled
    assert settled > datetime.now(UTC) - HOUR, "the purge counts from here"
    assert (await inspection.discard(MessageQuery())).changed == {}
    assert (await inspection.retry(MessageQuery())).changed == {}


async def test_commands_at_the_same_time_change_each_dead_letter_once(
    database: Database, inspection: MessageInspection
) -> None:
    """Of retries and discards in parallel one gets each dead letter, and none fails."""
    fill = """insert into platform.outbox (id, task, payload, created_at, state, settled_at)
        select gen_random_uuid(), 'test.note', '{}', now(), 'dead', now() from generate_series(1, 2000)"""
    async with database.sessions.begin() as session:
        await session.execute(text(fill))
    commands = [inspection.retry, inspection.discard] * 3
    repairs = await asyncio.gather(*(command(MessageQuery()) for command in commands))
    assert sum(sum(repair.changed.values()) for repair in repairs) == 2000


async def test_a_late_outcome_does_not_touch_a_retried_message(
    database: Database, inspection: MessageInspection, rows: dict[str, UUID]
) -> None:
    """An attempt that outlives its message's death and retry cannot end a newer attempt, except by its success."""
    log, row_id = build_message_log(database), rows["mail in the broker"]
    late = await log.begin(row_id, "late")
    assert late
    async with database.sessions.begin() as session:
        await session.execute(
            text("update platform.outbox set state = 'dead', settled_at = now() where state = 'running'")
        )
    await inspection.retry(MessageQuery(ids=(row_id,)))
    await log.fail(late, "late", retry_in=None)
    assert (await state_of(database, row_id)).state == "pending"
    newer = await log.begin(row_id, "newer")
    assert newer
    assert newer.number == late.number + 1
    await log.fail(late, "late", retry_in=None)
    assert (await state_of(database, row_id)).state == "running"
    await log.succeed(newer)
    assert (await state_of(database, row_id)).state == "done"


async def test_a_retry_wakes_the_relay(database_url: str, database: Database, rows: dict[str, UUID]) -> None:
    """A retry notifies the relay, even if the command ends at once."""
    woken = asyncio.Event()
    async with database.direct_connection() as connection:
        await connection.add_listener(OUTBOX_CHANNEL, lambda *_: woken.set())
        async with build_database(DatabaseSettings(url=SecretStr(database_url))) as of_the_command:
            await build_message_inspection(of_the_command).retry(MessageQuery(ids=(rows["dead note"],)))
        await asyncio.wait_for(woken.wait(), 20)


async def test_a_database_that_is_away_or_empty_is_one_error(
    empty_database_url: str, free_port: Callable[[], int]
) -> None:
    """Without a server, and without the tables, every method raises `Unavailable`."""
    for url in (empty_database_url, f"postgresql+asyncpg://app@127.0.0.1:{free_port()}/app"):
        async with build_database(DatabaseSettings(url=SecretStr(url))) as nothing:
            inspection = build_message_inspection(nothing)
            with pytest.raises(Unavailable):
                await inspection.find(MessageQuery(), limit=1)
            with pytest.raises(Unavailable):
                await inspection.get(uuid7())
            with pytest.raises(Unavailable):
                await inspection.retry(MessageQuery())
            with pytest.raises(Unavailable):
                await inspection.discard(MessageQuery())

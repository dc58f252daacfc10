"""The relay publishes messages again that were lost or failed, until they succeed or become dead letters."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from redis import Redis

from tequipy_devstack.servers import ValkeyServer
from tequipy_platform.database import Database
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log

from .relaying import MISSED_SOON, RunRelay, change, commit, ids, published, row_of, until

HOUR = timedelta(hours=1)


async def add(database: Database, word: str) -> UUID:
    """Commit one message."""
    (row_id,) = await commit(database, lambda work: work.outbox.add("test.note", word=word))
    return row_id


async def run_attempt(database: Database, row_id: UUID, *, retry_in: timedelta | None = None) -> None:
    """Begin an attempt; record a success, or a failure that is followed by another attempt."""
    log = build_message_log(database)
    attempt = await log.begin(row_id, "test:1")
    assert attempt
    if retry_in is None:
        await log.succeed(attempt)
    else:
        await log.fail(attempt, "Error: no", retry_in=retry_in)


async def test_messages_that_the_broker_lost_are_published_again(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay
) -> None:
    """When the broker comes back empty, unsettled messages are published again under their ids, settled ones not."""
    broker_url = private_redis.url()
    async with run_relay(broker_url, MISSED_SOON):
        lost, done = await add(database, "lost"), await add(database, "done")
        await until(lambda: len(published(broker_url)) >= 2)
        await run_attempt(database, done)
        private_redis.restart(empty=True)
        await until(lambda: bool(published(broker_url)))
    assert {message["id"] for message in published(broker_url)} == {str(lost)}


async def test_a_probe_finds_out_that_all_messages_are_lost(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay
) -> None:
    """After the broker was emptied only the oldest message is published again; once it is received, so are the rest."""
    broker_url = private_redis.url()
    async with run_relay(broker_url, MISSED_SOON):
        first, *rest = [await add(database, str(number)) for number in range(5)]
        await until(lambda: len(published(broker_url)) >= 5)
        private_redis.restart(empty=True)
        await until(lambda: bool(published(broker_url)))
        await asyncio.sleep(1.5)  # two polls: nothing else follows while nobody receives the probe
        assert ids(broker_url) == [str(first)]
        await run_attempt(database, first)
        await until(lambda: set(ids(broker_url)) == {str(id_) for id_ in (first, *rest)})


def add_many(work: SqlUnitOfWork) -> None:
    for number in range(297):
        work.outbox.add("test.note", word=str(number))


async def test_messages_that_only_wait_are_not_published_again(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """Of 300 messages that wait beyond the redelivery time none but one probe is published again."""
    async with run_relay(redis_url, MISSED_SOON):
        (first, *_) = [await add(database, str(number)) for number in range(3)]
        await until(lambda: len(published(redis_url)) == 3)
        await commit(database, add_many)
        await until(lambda: len(published(redis_url)) == 300)
        await asyncio.sleep(MISSED_SOON.total_seconds() + 2)
        after = await add(database, "after")
        await until(lambda: str(after) in ids(redis_url))
    assert len(published(redis_url)) <= 302
    assert ids(redis_url).count(str(first)) <= 2


async def test_a_message_whose_successors_were_received_is_published_again(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """A message that vanished from the broker is published again although others keep coming."""
    async with run_relay(redis_url, MISSED_SOON):
        lost = await add(database, "lost")
        await until(lambda: ids(redis_url) == [str(lost)])
        with Redis.from_url(redis_url) as redis:
            redis.delete("default")
        later = await add(database, "later")
        await until(lambda: ids(redis_url) == [str(later)])
        await run_attempt(database, later)
        await until(lambda: str(lost) in ids(redis_url))


async def test_new_messages_go_before_missed_ones(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """In one batch the new messages come first."""
    missed, new = await add(database, "missed"), await add(database, "new")
    past = datetime.now(UTC) - HOUR
    await change(database, missed, state="running", attempts=1, published_at=past, redeliver_at=past, queue="default")
    async with run_relay(redis_url):
        await until(lambda: len(published(redis_url)) == 2)
    assert ids(redis_url) == [str(new), str(missed)]


async def test_a_failed_message_is_published_again_when_it_is_due(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """A failed message is published after its wait under its id, and keeps the time of its first failure."""
    failed, waiting = await add(database, "failed"), await add(database, "waiting")
    since: set[datetime | None] = set()
    async with run_relay(redis_url, MISSED_SOON):
        await until(lambda: len(published(redis_url)) == 2)
        await run_attempt(database, waiting, retry_in=HOUR)
        for times in (2, 3):
            began = datetime.now(UTC)
            await run_attempt(database, failed, retry_in=timedelta(seconds=1))
            since.add((await row_of(database, failed)).failing_since)
            await until(lambda times=times: ids(redis_url).count(str(failed)) >= times)  # type: ignore[misc]  # -- binds the loop's value
            assert datetime.now(UTC) - began >= timedelta(seconds=1)
    row = await row_of(database, failed)
    assert (row.attempts, row.failed_attempts, row.publications, row.state) == (2, 2, 1, "published")
    assert len(since) == 1
    assert ids(redis_url).count(str(waiting)) == 1


@pytest.fixture
def refusing_redis(private_redis: ValkeyServer) -> str:
    """Return the URL of a broker that refuses messages for the queue `email` alone."""
    with Redis.from_url(private_redis.url()) as redis:
        redis.execute_command(
            "ACL", "SETUSER", "relay", "on", ">secret", "+@all", "~default*", "~tequipy.probe*", "~_kombu*", "&*"
        )
    return re.sub(r"//.*@", "//relay:secret@", private_redis.url())


async def test_a_message_that_the_broker_refuses_stops_no_other(
    database: Database,
    refusing_redis: str,
    run_relay: RunRelay,
    private_redis: ValkeyServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Sixty messages are published beside ten that the broker refuses, and a refused one is a dead letter after 1 h."""
    plain = private_redis.url()

    def write(work: SqlUnitOfWork) -> None:
        for number in range(70):
            work.outbox.add("test.note" if number % 7 else "test.note_too", word=str(number))

    rows = await commit(database, write)
    async with run_relay(refusing_redis):
        await until(lambda: len(set(ids(plain))) == 60)
        refused = [row for number, row in enumerate(rows) if not number % 7]
        while (row := await row_of(database, refused[0])).error is None:  # the relay marks after it has published
            await asyncio.sleep(0.02)
        assert (row.state, "refuses the message" in row.error) == ("failed", True)
        await change(database, refused[0], waiting_since=datetime.now(UTC) - HOUR, not_before=datetime.now(UTC))
        while (await row_of(database, refused[0])).state != "dead":
            await asyncio.sleep(0.05)
    assert any(record.message == "message_refused" for record in caplog.records)
    assert any(record.message == "message_dead_lettered" for record in caplog.records)


async def test_a_full_broker_is_an_outage(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """While the broker has no memory left no message counts as refused, and all are published afterwards."""
    with Redis.from_url(private_redis.url()) as redis:
        redis.config_set("maxmemory", "1mb")
        rows = [await add(database, str(number)) for number in range(5)]
        async with run_relay(private_redis.url()):
            await until(lambda: any(record.message == "relay_interrupted" for record in caplog.records))
            assert {(await row_of(database, row)).state for row in rows} == {"pending"}
            redis.config_set("maxmemory", "0")
            await until(lambda: set(map(str, rows)) <= set(ids(private_redis.url())))


async def test_messages_postponed_by_a_wrong_clock_are_published(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """Messages postponed while the database's clock was years ahead are published; intended delays are kept."""
    ahead, later = (datetime.now(UTC) + timedelta(days=days) for days in (1000, 7))
    failed, lost = await add(database, "failed"), await add(database, "lost")
    (delayed,) = await commit(database, lambda work: work.outbox.add("test.note", not_before=later))
    await change(database, failed, state="failed", not_before=ahead, failing_since=ahead, failed_attempts=1)
    await change(
        database, lost, state="published", queue="default", published_at=ahead, redeliver_at=ahead, publications=1
    )
    async with run_relay(redis_url, HOUR):
        await until(lambda: len(published(redis_url)) == 2)
    assert {message["payload"]["word"] for message in published(redis_url)} == {"failed", "lost"}
    assert (await row_of(database, delayed)).not_before == later
    failing_since = (await row_of(database, failed)).failing_since
    assert failing_since is not None
    assert failing_since < later, "its lifetime counts from the correction"


async def test_large_payloads_do_not_reach_the_relay(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """A payload of 5 MiB, which only a manual change can write, is published as an id alone."""
    row_id = await add(database, "large")
    await change(database, row_id, payload={"word": "x" * 5_242_880})
    async with run_relay(redis_url):
        await until(lambda: ids(redis_url) == [str(row_id)])
    with Redis.from_url(redis_url) as redis:
        assert len(redis.lrange("default", 0, -1)[0]) < 2000

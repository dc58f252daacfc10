"""The relay publishes messages again that were lost or failed, until they succeed or become dead letters."""

from datetime import UTC, datetime, timedelta

import pytest

from tequipy_devstack.servers import ValkeyServer
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging import build_message_log
from tequipy_platform.messaging.celery.headers import ATTEMPTS_HEADER, FAILING_HEADER
from tequipy_platform.messaging.unpublished import (
    MAX_PUBLICATIONS,
)

from .relaying import MISSED_SOON, RunRelay, change, commit, ids, published, row_of, until


async def test_messages_that_the_broker_lost_are_published_again(
    database: Database, private_redis: ValkeyServer, run_relay: RunRelay
) -> None:
    """When the broker comes back empty, unsettled messages are published again under their ids, settled ones not."""
    broker_url = private_redis.url()
    async with run_relay(broker_url, MISSED_SOON):
        (lost,) = await commit(database, lambda work: work.outbox.add("test.note", word="lost"))
        (done,) = await commit(database, lambda work: work.outbox.add("test.note", word="done"))
        await until(lambda: len(published(broker_url)) >= 2)
        await build_message_log(database).settle_message(done)
        private_redis.restart(empty=True)
        await until(lambda: bool(published(broker_url)))
    assert {message["id"] for message in published(broker_url)} == {str(lost)}


async def test_a_failed_message_is_published_again_when_it_is_due(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """A failed message is published after its wait, with its id, the number of failures and the time of the first."""
    (failed,) = await commit(database, lambda work: work.outbox.add("test.note", word="failed"))
    (waiting,) = await commit(database, lambda work: work.outbox.add("test.note", word="waiting"))
    async with run_relay(redis_url, MISSED_SOON):
        await until(lambda: len(published(redis_url)) == 2)
        assert await build_message_log(database).retry_message(waiting, timedelta(hours=1))
        for times in (2, 3):
            began = datetime.now(UTC)
            assert await build_message_log(database).retry_message(failed, timedelta(seconds=1))
            await until(lambda times=times: ids(redis_url).count(str(failed)) >= times)  # type: ignore[misc]  # -- as above
            assert datetime.now(UTC) - began >= timedelta(seconds=1)
    first, second, third = (message for message in published(redis_url) if message["id"] == str(failed))
    assert [message[ATTEMPTS_HEADER] for message in (first, second, third)] == [0, 1, 2]
    assert (first[FAILING_HEADER], second[FAILING_HEADER]) == (None, third[FAILING_HEADER])
    row = await row_of(database, failed)
    assert row.failing_since is not None
    assert third[FAILING_HEADER] == row.failing_since.timestamp()
    assert row.publications == 1, "those that nobody answered"
    assert ids(redis_url).count(str(waiting)) == 1


async def test_a_settled_message_is_not_retried(database: Database, redis_url: str, run_relay: RunRelay) -> None:
    """When one of two copies of a message succeeds, the other one's failure causes no further attempt."""
    (before,) = await commit(database, lambda work: work.outbox.add("test.note", word="before"))
    (after,) = await commit(database, lambda work: work.outbox.add("test.note", word="after"))
    async with run_relay(redis_url):
        await until(lambda: len(published(redis_url)) == 2)
        assert await build_message_log(database).retry_message(before, timedelta(0))
        await build_message_log(database).settle_message(before)
        await build_message_log(database).settle_message(after)
        assert await build_message_log(database).retry_message(after, timedelta(0))
        await commit(database, lambda work: work.outbox.add("test.note", word="later"))
        await until(lambda: published(redis_url)[-1]["kwargs"]["word"] == "later")
    assert ids(redis_url).count(str(after)) == 1
    assert (await row_of(database, before)).settled_at is not None


async def test_a_message_that_is_not_from_the_outbox_is_not_retried(database: Database) -> None:
    """`retry_message` returns False for an id that is not in the outbox, and writes nothing."""
    assert not await build_message_log(database).retry_message(uuid7(), timedelta(0))


async def test_an_unpublishable_message_delays_no_other(
    database: Database, redis_url: str, run_relay: RunRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """An unpublishable message is logged as an error and postponed; the messages behind it are published at once."""
    (bad,) = await commit(database, lambda work: work.outbox.add("test.note"))
    await change(database, bad, payload=["no", "keywords"])  # only a manual change of the table can cause this
    await commit(database, lambda work: work.outbox.add("test.note", word="good"))
    async with run_relay(redis_url, timedelta(hours=1)):
        await until(lambda: bool(published(redis_url)))
    assert [message["kwargs"]["word"] for message in published(redis_url)] == ["good"]
    (logged,) = [record for record in caplog.records if record.message == "message_refused"]
    assert logged.__dict__["message_id"] == str(bad)
    row = await row_of(database, bad)
    assert (row.published_at, row.publications) == (None, 1)
    assert row.not_before > datetime.now(UTC) + timedelta(minutes=50)


async def test_messages_postponed_by_a_wrong_clock_are_published(
    database: Database, redis_url: str, run_relay: RunRelay
) -> None:
    """Messages postponed while the database's clock was years ahead are published; intended delays are kept."""
    ahead, later = (datetime.now(UTC) + timedelta(days=days) for days in (1000, 7))
    (failed,) = await commit(database, lambda work: work.outbox.add("test.note", word="failed"))
    (lost,) = await commit(database, lambda work: work.outbox.add("test.note", word="lost"))
    (delayed,) = await commit(database, lambda work: work.outbox.add("test.note", not_before=later))
    await change(database, failed, not_before=ahead, failing_since=ahead, failed_attempts=1)
    await change(database, lost, published_at=ahead, redeliver_at=ahead, publications=1)
    async with run_relay(redis_url, timedelta(hours=1)):
        await until(lambda: len(published(redis_url)) == 2)
    assert {message["kwargs"]["word"] for message in published(redis_url)} == {"failed", "lost"}
    assert (await row_of(database, delayed)).not_before == later
    failing_since = (await row_of(database, failed)).failing_since
    assert failing_since is not None
    assert failing_since < later, "its lifetime counts from the correction"


async def test_a_message_that_is_never_settled_becomes_a_dead_letter(
    database: Database, redis_url: str, run_relay: RunRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that was published ten times and never settled is logged once, marked, and not published again."""
    (endless,) = await commit(database, lambda work: work.outbox.add("test.note", word="endless"))
    past = datetime.now(UTC) - timedelta(minutes=1)
    await change(database, endless, published_at=past, redeliver_at=past, publications=MAX_PUBLICATIONS)
    await commit(database, lambda work: work.outbox.add("test.note", word="good"))
    async with run_relay(redis_url):
        await until(lambda: bool(published(redis_url)))
        await commit(database, lambda work: work.outbox.add("test.note", word="later"))
        await until(lambda: len(published(redis_url)) >= 2)
    assert [message["kwargs"]["word"] for message in published(redis_url)] == ["good", "later"]
    (logged,) = [record for record in caplog.records if record.message == "message_dead_lettered"]
    assert (logged.__dict__["message_id"], logged.__dict__["task"]) == (str(endless), "test.note")
    assert (await row_of(database, endless)).given_up_at is not None

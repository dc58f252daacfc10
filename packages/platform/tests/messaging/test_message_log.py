"""The message log: one contract suite for PostgreSQL and the fake, and tests of PostgreSQL alone."""

import asyncio
from datetime import timedelta

import pytest

from tequipy_platform import NotFound
from tequipy_platform.database import Database

from .twins import HOUR, MINUTE, REDELIVERY, SqlTwin, Twin, begin, published, unknown_id

SECOND = timedelta(seconds=1)
KEEP_A_WEEK = {"outbox_age": 7 * 24 * HOUR, "dead_letter_age": 90 * 24 * HOUR, "inbox_age": 30 * 24 * HOUR}


async def test_an_attempt_holds_the_message(twin: Twin) -> None:
    """An attempt has payload, context and counts of its row, which then is running in that process."""
    row_id = await published(twin, payload={"word": "x"}, schema_version=2)
    attempt = await begin(twin, row_id)
    assert (attempt.message_id, attempt.task, attempt.payload) == (row_id, "test.do", {"word": "x"})
    assert (attempt.number, attempt.schema_version, attempt.failed_attempts, attempt.deaths) == (1, 2, 0, 0)
    assert (attempt.failing_for, attempt.after_death) == (None, False)
    row = await twin.row(row_id)
    assert (row.state, row.worker, row.attempts) == ("running", "host:1", 1)
    assert row.started_at is not None
    assert row.redeliver_at == row.started_at + REDELIVERY


async def test_an_unknown_message_is_not_found(twin: Twin) -> None:
    """Neither an id without a row nor that of an event is a message, and the event stays as it was."""
    event = await twin.add(None, event="test.done")
    for row_id in (unknown_id(), event):
        with pytest.raises(NotFound):
            await twin.log.begin(row_id, "host:1")
    assert (await twin.row(event)).state == "pending"


async def test_a_settled_message_begins_no_attempt(twin: Twin) -> None:
    """A copy of a message that is done, dead or discarded does nothing, also when it is redelivered."""
    row_id = await published(twin)
    for state in ("done", "dead", "discarded"):
        await twin.change(row_id, state=state)
        assert await twin.log.begin(row_id, "host:1", redelivered=True) is None
    assert (await twin.row(row_id)).attempts == 0


async def test_a_success_settles_the_message(twin: Twin) -> None:
    """After a success the message is done, and has no error."""
    row_id = await published(twin)
    await twin.log.fail(await begin(twin, row_id), "Error: no", retry_in=timedelta(0))
    await twin.log.succeed(await begin(twin, row_id))
    row = await twin.row(row_id)
    assert (row.state, row.error, row.settled_at is not None) == ("done", None, True)


async def test_a_failed_message_waits(twin: Twin) -> None:
    """A failure is counted and kept, and the next attempt begins when it is due, with the time since the first."""
    row_id = await published(twin)
    await twin.log.fail(await begin(twin, row_id), "Error: one", retry_in=MINUTE)
    row = await twin.row(row_id)
    assert (row.state, row.failed_attempts, row.error, row.publications) == ("failed", 1, "Error: one", 0)
    assert (row.published_at, row.redeliver_at, row.not_before > await twin.now()) == (None, None, True)
    assert await twin.log.begin(row_id, "host:1", redelivered=True) is None
    assert await twin.publish() == []
    await twin.advance(MINUTE)
    assert await twin.publish() == [row_id]
    attempt = await begin(twin, row_id)
    assert (attempt.number, attempt.failed_attempts, attempt.after_death) == (2, 1, False)
    assert attempt.failing_for is not None
    assert MINUTE <= attempt.failing_for < 2 * MINUTE
    await twin.log.fail(attempt, "Error: two", retry_in=None)
    assert (await twin.row(row_id)).state == "dead"
    assert await twin.failures(row_id) == [(1, "Error: one", True), (2, "Error: two", True)]


async def test_errors_are_cut(twin: Twin) -> None:
    """Of a long error the first 1,000 characters are kept."""
    row_id = await published(twin)
    await twin.log.fail(await begin(twin, row_id), "x" * 2000, retry_in=None)
    assert (await twin.row(row_id)).error == "x" * 1000
    assert await twin.failures(row_id) == [(1, "x" * 1000, True)]


async def test_a_copy_of_a_running_message_does_nothing(twin: Twin) -> None:
    """A second copy begins no attempt and counts no death while the first one runs within its time."""
    row_id = await published(twin)
    attempt = await begin(twin, row_id)
    for _ in range(6):
        assert await twin.log.begin(row_id, "host:2") is None
    row = await twin.row(row_id)
    assert (row.attempts, row.deaths, row.worker) == (1, 0, "host:1")
    await twin.log.fail(attempt, "Error: no", retry_in=MINUTE)
    assert (await twin.row(row_id)).state == "failed"


async def test_a_redelivered_message_counts_a_death(twin: Twin) -> None:
    """If the broker redelivers the message of an attempt without an outcome, its process has died."""
    row_id = await published(twin)
    await begin(twin, row_id)
    attempt = await begin(twin, row_id, redelivered=True)
    assert (attempt.number, attempt.failed_attempts, attempt.deaths, attempt.after_death) == (2, 1, 1, True)
    assert attempt.failing_for is not None
    ((number, error, has_end),) = await twin.failures(row_id)
    assert (number, "ended without an outcome" in error, has_end) == (1, True, False)


async def test_an_attempt_over_its_time_counts_a_death(twin: Twin) -> None:
    """After its time any copy begins the next attempt."""
    row_id = await published(twin)
    await begin(twin, row_id)
    await twin.advance(REDELIVERY)
    assert (await begin(twin, row_id)).after_death


async def test_a_lost_attempt_is_published_again(twin: Twin) -> None:
    """The relay publishes the message of a lost attempt once, and the next attempt counts a death."""
    row_id = await published(twin)
    await begin(twin, row_id)
    assert await twin.publish() == []
    await twin.advance(REDELIVERY)
    assert await twin.publish() == [row_id]
    assert await twin.publish() == []
    assert (await twin.row(row_id)).state == "running"
    assert (await begin(twin, row_id)).deaths == 1
    assert await twin.log.begin(row_id, "host:2") is None


async def test_a_late_outcome_changes_nothing_but_a_success(twin: Twin) -> None:
    """Of an attempt that another one has followed only the success counts."""
    row_id = await published(twin)
    late = await begin(twin, row_id)
    await begin(twin, row_id, redelivered=True)
    before = await twin.row(row_id)
    state = (before.state, before.attempts, before.failed_attempts, before.error, before.not_before)
    await twin.log.fail(late, "Error: late", retry_in=None)
    await twin.log.fail(late, "Error: late", retry_in=MINUTE)
    await twin.log.postpone(late, MINUTE)
    await twin.log.hand_back(late)
    assert await twin.log.wait_for_release(late, "late")
    row = await twin.row(row_id)
    assert (row.state, row.attempts, row.failed_attempts, row.error, row.not_before) == state
    assert len(await twin.failures(row_id)) == 1
    await twin.log.succeed(late)
    assert (await twin.row(row_id)).state == "done"


async def test_a_success_after_death_counts(twin: Twin) -> None:
    """A message that was given up too early is done after all."""
    row_id = await published(twin)
    late = await begin(twin, row_id)
    await twin.log.fail(await begin(twin, row_id, redelivered=True), "Error: no", retry_in=None)
    await twin.log.succeed(late)
    row = await twin.row(row_id)
    assert (row.state, row.error) == ("done", None)
    await twin.log.fail(late, "Error: later", retry_in=None)
    assert (await twin.row(row_id)).state == "done"


async def test_a_postponed_attempt_counts_no_failure(twin: Twin) -> None:
    """A postponed message is due later, and its attempt has neither failed nor died."""
    row_id = await published(twin)
    await begin(twin, row_id)
    await twin.log.postpone(await begin(twin, row_id, redelivered=True), MINUTE)
    row = await twin.row(row_id)
    assert (row.state, row.failed_attempts, row.deaths, row.publications) == ("failed", 1, 1, 0)
    assert await twin.publish() == []
    await twin.advance(MINUTE)
    assert await twin.publish() == [row_id]
    assert not (await begin(twin, row_id)).after_death


async def test_a_message_handed_back_begins_again(twin: Twin) -> None:
    """The redelivery of a message that was handed back is no death, and its place in the queue is kept."""
    row_id = await published(twin)
    before = (await twin.row(row_id)).published_at
    await twin.log.hand_back(await begin(twin, row_id))
    row = await twin.row(row_id)
    assert (row.state, row.published_at, row.failed_attempts, row.deaths) == ("published", before, 0, 0)
    attempt = await begin(twin, row_id, redelivered=True)
    assert (attempt.number, attempt.deaths, attempt.after_death) == (2, 0, False)


async def test_a_message_runs_before_the_relay_has_recorded_it(twin: Twin) -> None:
    """A relay that died after it had published a message leaves a row that runs nevertheless, once."""
    row_id = await twin.add()
    attempt = await begin(twin, row_id)
    assert await twin.publish() == []
    await twin.log.succeed(attempt)
    assert await twin.publish() == []


async def test_a_foreign_message_is_a_dead_letter(twin: Twin) -> None:
    """A foreign body gets a row of its own; an unknown id keeps it, and becomes one dead letter."""
    unknown, known = unknown_id(), await published(twin)
    await twin.log.record_foreign("nonsense", queue="email")
    for _ in range(2):
        await twin.log.record_foreign("unknown", queue=None, message_id=unknown)
    await twin.log.record_foreign("known", queue=None, message_id=known)
    rows = {row.id: row for row in await twin.rows()}
    assert len(rows) == 3
    assert rows[known].state == "published"
    assert (rows[unknown].state, rows[unknown].task, rows[unknown].error) == ("dead", "tequipy.foreign", "unknown")
    (foreign,) = (row for row in rows.values() if row.queue == "email")
    assert (foreign.state, foreign.error, foreign.settled_at is not None) == ("dead", "nonsense", True)


async def test_old_messages_are_purged(twin: Twin) -> None:
    """Done and discarded messages go after a week, dead letters after 90 days, unsettled ones never."""
    ids = {state: await published(twin) for state in ("published", "done", "discarded", "dead")}
    settled_at = await twin.now()
    for state, row_id in ids.items():
        await twin.change(row_id, state=state, settled_at=None if state == "published" else settled_at)
    left = []
    for days in (6, 2, 80, 3):
        await twin.advance(timedelta(days=days))
        await twin.log.purge_messages(**KEEP_A_WEEK, batch_size=2)
        present = {row.id for row in await twin.rows()}
        left.append({state for state, row_id in ids.items() if row_id in present})
    assert left == [set(ids), {"published", "dead"}, {"published", "dead"}, {"published"}]


async def test_of_concurrent_copies_one_begins(database: Database) -> None:
    """Of ten copies that begin at the same time one gets an attempt, and no death is counted."""
    twin = SqlTwin(database)
    row_id = await published(twin)
    attempts = await asyncio.gather(*(twin.log.begin(row_id, f"host:{number}") for number in range(10)))
    assert sum(attempt is not None for attempt in attempts) == 1
    assert (await twin.row(row_id)).deaths == 0


async def test_a_failure_beside_a_redelivery_blocks_nobody(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome that is stored while the next attempt begins is either counted or late, without a deadlock."""
    twin = SqlTwin(database)
    for _ in range(30):
        row_id = await published(twin)
        attempt = await begin(twin, row_id)
        await asyncio.gather(
            twin.log.fail(attempt, "Error: no", retry_in=HOUR), twin.log.begin(row_id, "host:2", redelivered=True)
        )
        row = await twin.row(row_id)
        assert (row.state, row.deaths) in {("failed", 0), ("running", 1)}
        assert row.failed_attempts == 1
        assert len(await twin.failures(row_id)) == 1
    assert caplog.records == []

"""Messages that only a newer release can handle: one contract suite for PostgreSQL and the fake."""

from datetime import timedelta

import pytest

from .twins import HOUR, MINUTE, Twin, begin, published

SECOND = timedelta(seconds=1)


async def test_a_message_waits_for_a_newer_release(twin: Twin) -> None:
    """The waits grow from two seconds to a minute; after an hour the message is a dead letter with its reason."""
    row_id, waits = await published(twin), []
    while await twin.log.wait_for_release(await begin(twin, row_id), "no task"):
        row = await twin.row(row_id)
        assert (row.state, row.failed_attempts, row.error, row.published_at) == ("failed", 0, "no task", None)
        waits.append(round((row.not_before - await twin.now()).total_seconds()))
        await twin.advance(timedelta(seconds=waits[-1]) + SECOND)
        await twin.publish()
        assert len(waits) < 100
    assert waits[0] == 2
    assert waits == sorted(waits)
    assert (waits[-1], 3500 <= sum(waits) <= 3620) == (60, True)
    row = await twin.row(row_id)
    assert (row.state, row.error, row.settled_at is not None) == ("dead", "no task", True)


@pytest.mark.parametrize("outcome", ["failed", "postponed", "handed back"])
async def test_each_wait_for_a_release_has_its_hour(twin: Twin, outcome: str) -> None:
    """After a process has handled the message, a later wait for a release begins anew."""
    row_id = await published(twin)
    await twin.log.wait_for_release(await begin(twin, row_id), "no task")
    await twin.advance(MINUTE)
    attempt = await begin(twin, row_id)
    if outcome == "failed":
        await twin.log.fail(attempt, "Error: no", retry_in=timedelta(0))
    elif outcome == "postponed":
        await twin.log.postpone(attempt, timedelta(0))
    else:
        await twin.log.hand_back(attempt)
    await twin.advance(2 * HOUR)
    assert await twin.log.wait_for_release(await begin(twin, row_id), "no task")

"""Messages whose times are from a wrong clock: one contract suite for PostgreSQL and the fake."""

from datetime import timedelta

from .twins import MINUTE, REDELIVERY, Twin


async def test_times_from_a_wrong_clock_are_reset(twin: Twin) -> None:
    """What was postponed while the clock was years ahead is due at once; delays that the app asked for are kept."""
    ahead, later = await twin.now() + timedelta(days=1000), await twin.now() + timedelta(days=7)
    held = await twin.add(None, event="test.done", not_before=ahead, waiting_since=ahead)
    rows = [
        await twin.add(state="failed", not_before=ahead, failing_since=ahead, failed_attempts=1),
        await twin.add(state="failed", not_before=ahead, started_at=ahead, failing_since=await twin.now()),
        await twin.add(state="failed", not_before=ahead, waiting_since=ahead),
        await twin.add(state="failed", not_before=ahead, waiting_since=await twin.now()),
        await twin.add(state="published", queue="default", published_at=ahead, redeliver_at=ahead),
    ]
    running = await twin.add(
        state="running", queue="default", published_at=ahead, started_at=ahead, redeliver_at=ahead, attempts=1
    )
    delayed = await twin.add(not_before=later)
    await twin.reset_future_times()
    await twin.advance(timedelta(milliseconds=1))
    now = await twin.now()
    assert await twin.relay.fan_out({}, 100) == 1
    assert (await twin.row(held)).state == "done"
    assert set(rows) <= set(await twin.publish())
    for row in await twin.rows():
        assert row.not_before <= now + MINUTE or row.id in {running, delayed}
        assert all(time is None or time <= now + MINUTE for time in (row.failing_since, row.waiting_since))
    assert (await twin.row(delayed)).not_before >= later - MINUTE
    assert await twin.log.begin(running, "host:2") is None, "the attempt gets its whole time"
    await twin.advance(REDELIVERY)
    assert running in await twin.publish()


async def test_a_publication_from_the_future_shows_nothing(twin: Twin) -> None:
    """A message that was received while the clock was ahead does not show that all later ones are missed."""
    ahead = await twin.now() + timedelta(days=1000)
    done = await twin.add()
    await twin.publish()
    attempt = await twin.log.begin(done, "host:1")
    assert attempt
    await twin.log.succeed(attempt)
    await twin.change(done, published_at=ahead, started_at=ahead)
    for _ in range(3):
        await twin.add()
    await twin.publish()
    await twin.advance(REDELIVERY)
    assert len(await twin.publish()) == 1

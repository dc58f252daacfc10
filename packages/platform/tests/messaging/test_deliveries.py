"""Deliveries: an attempt always ends, and its outcome can always be stored."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tequipy_platform import Delivery, Task
from tequipy_platform.messaging import deliveries as deliveries_module
from tequipy_platform.messaging.deliveries import Deliveries, Outcome, Stop, describe

from .twins import Twin

TASK = Task("test.do")


@pytest.mark.parametrize("text", ["a \x00 in it", "half a pair: \ud800", "\x00" * 2000, "x" * 100_000])
async def test_an_error_with_any_text_is_stored(twin: Twin, text: str) -> None:
    """An error whose text PostgreSQL cannot store as it is (NUL, a lone surrogate) is one failed attempt."""

    async def fail(_: Delivery) -> None:
        raise ValueError(text)

    message_id = await twin.add()
    await twin.publish()
    outcome = await asyncio.wait_for(Deliveries({TASK: fail}, twin.log).handle(message_id), timeout=5)
    assert outcome is Outcome.RETRIED
    assert (await twin.row(message_id)).state == "failed"
    [(number, error, _)] = await twin.failures(message_id)
    assert (number, error.isprintable(), error.startswith("ValueError: ")) == (1, True, True)


async def test_a_message_that_kills_its_process_gets_no_further_try_by_an_older_release(twin: Twin) -> None:
    """Its last death is counted although the next attempt began in a release that does not know the task."""

    async def run(_: Delivery) -> None:
        pytest.fail("it ran once more than its policy allows")

    message_id = await twin.add()
    await twin.publish()
    for redelivered in (False, *[True] * (TASK.retry.deaths - 1)):
        assert await twin.log.begin(message_id, "host:1", redelivered=redelivered)
    assert await Deliveries({}, twin.log).handle(message_id, redelivered=True) is Outcome.RETRIED
    await twin.advance(timedelta(minutes=1))
    await twin.publish()
    assert await Deliveries({TASK: run}, twin.log).handle(message_id) is Outcome.FAILED
    row = await twin.row(message_id)
    assert (row.state, row.deaths) == ("dead", TASK.retry.deaths)


async def test_a_stop_before_the_delivery_begins_hands_the_message_back(twin: Twin) -> None:
    """A worker that is stopped while its child still opens resources hands the message back, and nothing has run."""
    ran = False

    async def note(_: Delivery) -> None:
        nonlocal ran
        ran = True

    message_id = await twin.add()
    await twin.publish()
    deliveries = Deliveries({TASK: note}, twin.log)
    deliveries.interrupt(Stop.SHUTDOWN)
    assert await deliveries.handle(message_id) is Outcome.RETURNED
    assert not ran
    row = await twin.row(message_id)
    assert (row.state, row.failed_attempts) == ("published", 0)


async def test_a_late_time_limit_does_not_end_the_next_delivery(twin: Twin) -> None:
    """The signal of a time limit that arrives after the end of its delivery means no other."""

    async def note(_: Delivery) -> None: ...

    message_id = await twin.add()
    await twin.publish()
    deliveries = Deliveries({TASK: note}, twin.log)
    deliveries.interrupt(Stop.TIME_LIMIT)
    assert await deliveries.handle(message_id) is Outcome.SUCCEEDED


async def test_answers_of_the_database_that_were_lost_are_no_deaths(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt whose begin was committed, but not confirmed, five times (a standby that hangs), runs as usual."""
    ran, lost = 0, 0
    original = twin.log.begin

    async def note(_: Delivery) -> None:
        nonlocal ran
        ran += 1

    async def begin(*arguments: Any, **options: Any) -> Any:
        nonlocal lost
        attempt = await original(*arguments, **options)
        lost += 1
        if lost <= TASK.retry.deaths:
            raise OSError("no answer")
        return attempt

    monkeypatch.setattr(twin.log, "begin", begin)
    monkeypatch.setattr(deliveries_module, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(deliveries_module, "_FIRST_PAUSE", 0.01)
    message_id = await twin.add()
    await twin.publish()
    assert await Deliveries({TASK: note}, twin.log).handle(message_id) is Outcome.SUCCEEDED
    row = await twin.row(message_id)
    assert (ran, row.state, row.deaths, row.failed_attempts) == (1, "done", 0, 0)
    assert await twin.failures(message_id) == []


async def test_a_repeated_begin_leaves_the_attempt_of_another_process(twin: Twin) -> None:
    """If another process began an attempt meanwhile, it runs there, and has not died."""
    message_id = await twin.add()
    await twin.publish()
    assert await twin.log.begin(message_id, "host:1")
    assert await twin.log.begin(message_id, "host:2", repeated=True) is None
    assert (await twin.row(message_id)).deaths == 0


def test_the_text_of_an_error_has_no_secret() -> None:
    """Secrets are replaced as in a log line, also at the place where a long text is cut; other texts stay."""
    token = "rt1." + "a" * 22 + "." + "b" * 43
    assert describe(ValueError(f"no host in redis://me:pass@host, {token}, password=x")) == (
        "ValueError: no host in redis://[redacted]@host, [redacted], password=[redacted]"
    )
    assert "aaa" not in describe(ValueError("x" * 460 + token))
    assert describe(OSError('a "quoted" line\nand ä')) == 'OSError: a "quoted" line\nand ä'
    assert describe(ValueError()) == "ValueError"

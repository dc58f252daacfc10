"""The breaker: how long it waits, and what closes it."""

import asyncio

import pytest

from tequipy_caching import CacheUnavailable
from tequipy_caching.infrastructure import breaker
from tequipy_caching.infrastructure.breaker import Breaker


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the pauses instead of making them."""
    made: list[float] = []

    async def pause(_: Breaker, seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(breaker.Breaker, "_pause", pause)
    return made


async def test_probes_come_ever_more_rarely(pauses: list[float]) -> None:
    """The first probe comes after a second, each pause is twice the last, up to thirty; the first success closes."""
    failures = 7

    async def probe() -> None:
        if len(pauses) <= failures:
            raise CacheUnavailable

    opened = Breaker(probe, has_pending=lambda: False)
    opened.trip(OSError("refused"))
    opened.trip(OSError("refused"))
    assert opened._recovery is not None
    await opened._recovery
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert not opened.open


async def test_what_waits_is_replayed_with_the_breaker_closed(pauses: list[float]) -> None:
    """Changes that Redis refused are tried again though it answers, until none waits."""
    waiting = 3

    async def probe() -> None:
        nonlocal waiting
        waiting -= 1

    closed = Breaker(probe, has_pending=lambda: waiting > 0)
    closed.start_probing()
    assert closed._recovery is not None
    await closed._recovery
    assert (waiting, len(pauses), closed.open) == (0, 3, False)


async def test_a_hurried_probe_is_made_at_once() -> None:
    """Who has heard from Redis need not wait for the pause to end."""

    async def probe() -> None: ...

    opened = Breaker(probe, has_pending=lambda: False)
    opened.trip(OSError("refused"))
    await asyncio.sleep(0)
    opened.probe_now()
    assert opened._recovery is not None
    await opened._recovery
    assert not opened.open

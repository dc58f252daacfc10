"""The circuit breaker: the pauses between probes, and what closes it."""

import asyncio

import pytest

from tequipy_caching import CacheUnavailable
from tequipy_caching.redis import circuit_breaker
from tequipy_caching.redis.circuit_breaker import Breaker


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of waiting."""
    made: list[float] = []

    async def pause(_: Breaker, seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(circuit_breaker.Breaker, "_pause", pause)
    return made


async def test_pauses_between_probes_double(pauses: list[float]) -> None:
    """The first probe comes after 1 s, the pauses double up to 30 s, and the first success closes the breaker."""
    failures = 7

    async def probe() -> None:
        if len(pauses) <= failures:
            raise CacheUnavailable

    opened = Breaker(probe, has_pending=lambda: False, labels={})
    opened.trip(OSError("refused"))
    opened.trip(OSError("refused"))
    assert opened._probing is not None
    await opened._probing
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert not opened.open


async def test_pending_changes_are_replayed_with_the_breaker_closed(pauses: list[float]) -> None:
    """While changes are pending, probes are made although the breaker is closed."""
    waiting = 3

    async def probe() -> None:
        nonlocal waiting
        waiting -= 1

    closed = Breaker(probe, has_pending=lambda: waiting > 0, labels={})
    closed.start_probing()
    assert closed._probing is not None
    await closed._probing
    assert (waiting, len(pauses), closed.open) == (0, 3, False)


async def test_probe_now_ends_the_pause() -> None:
    """`probe_now` ends the pause."""

    async def probe() -> None: ...

    opened = Breaker(probe, has_pending=lambda: False, labels={})
    opened.trip(OSError("refused"))
    await asyncio.sleep(0)
    opened.probe_now()
    assert opened._probing is not None
    await opened._probing
    assert not opened.open

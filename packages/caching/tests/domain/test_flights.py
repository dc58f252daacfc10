"""One load for all who wait."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import pytest

from tequipy_caching import CacheError, LoadTimeout, RecursiveLoad
from tequipy_caching.domain.flights import Flights
from tequipy_caching.domain.metrics import Tally


class Load:
    """Counts its calls and how many were cancelled; waits for `go`."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return 42


async def depart(flights: Flights[int], load: Callable[[], Awaitable[int]], count: int) -> list[asyncio.Task[int]]:
    """Return tasks that all wait for one load."""
    tasks = [asyncio.create_task(flights.join("key", load)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@pytest.fixture
def coalesced() -> Tally:
    return Tally()


@pytest.fixture
def flights(coalesced: Tally) -> Flights[int]:
    return Flights("numbers", 10, coalesced)


async def test_ten_thousand_misses_are_one_load(flights: Flights[int], coalesced: Tally) -> None:
    """All who ask while the load is under way get its value, and are counted as having waited."""
    load = Load()
    tasks = await depart(flights, load, 10_000)
    load.go.set()
    assert await asyncio.gather(*tasks) == [42] * 10_000
    assert load.calls == 1
    assert coalesced.count == 9_999


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_one_who_leaves_disturbs_nobody(flights: Flights[int], leaver: int) -> None:
    """Whoever is cancelled, the first caller included, the others get the value of the same load."""
    load = Load()
    tasks = await depart(flights, load, 3)
    tasks.pop(leaver).cancel()
    await asyncio.sleep(0)
    load.go.set()
    assert await asyncio.gather(*tasks) == [42, 42]
    assert (load.calls, load.cancelled) == (1, 0)


async def test_the_last_one_who_leaves_cancels_the_load(flights: Flights[int]) -> None:
    """A load that nobody waits for ends, and the next caller starts another."""
    load = Load()
    for task in await depart(flights, load, 3):
        task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert load.cancelled == 1
    load.go.set()
    assert await flights.join("key", load) == 42
    assert load.calls == 2


async def test_all_who_wait_get_the_exception(flights: Flights[int]) -> None:
    """Everybody gets the one exception with the traceback of the load, which does not grow from one to the next."""
    depths: list[int] = []

    async def fail() -> int:
        await asyncio.sleep(0)
        raise LookupError("no such number")

    async def call() -> None:
        try:
            await flights.join("key", fail)
        except LookupError as error:
            frames = traceback.extract_tb(error.__traceback__)
            assert frames[-1].name == "fail"
            depths.append(len(frames))

    await asyncio.gather(*(call() for _ in range(100)))
    assert len(depths) == 100
    assert len(set(depths)) == 1


async def test_a_forgotten_load_goes_on_for_those_who_wait(flights: Flights[int]) -> None:
    """After an invalidation later callers start a load of their own; earlier ones get what theirs gives."""
    first, second = Load(), Load()
    earlier = await depart(flights, first, 2)
    flights.forget("key")
    later = await depart(flights, second, 2)
    second.go.set()
    assert await asyncio.gather(*later) == [42, 42]
    first.go.set()
    assert await asyncio.gather(*earlier) == [42, 42]
    assert (first.calls, second.calls) == (1, 1)


async def test_recursion_is_no_deadlock(flights: Flights[int]) -> None:
    """A load that asks for its own key, directly or through another, is told so."""

    async def load() -> int:
        return await flights.join("other", lambda: flights.join("key", load))

    with pytest.raises(RecursiveLoad, match="numbers"):
        await flights.join("key", load)


async def test_what_a_load_leaves_behind_may_ask_for_its_key(flights: Flights[int]) -> None:
    """A task that a load has started is no recursion once the load is over."""
    left_behind: list[asyncio.Task[int]] = []
    over = asyncio.Event()
    second = Load()
    second.go.set()

    async def later() -> int:
        await over.wait()
        return await flights.join("key", second)

    async def load() -> int:
        left_behind.append(asyncio.create_task(later()))
        return 1

    assert await flights.join("key", load) == 1
    over.set()
    assert await left_behind[0] == 42


async def test_a_load_over_the_hard_timeout_is_ended() -> None:
    """A load that hangs is cancelled and raises LoadTimeout; a TimeoutError of its own is passed on as it is."""
    flights: Flights[int] = Flights("numbers", 0.01, Tally())
    load = Load()
    with pytest.raises(LoadTimeout, match=r"over 0\.01 s") as caught:
        await flights.join("key", load)
    assert isinstance(caught.value, TimeoutError)
    assert load.cancelled == 1

    async def fail() -> int:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await flights.join("key", fail)


async def test_a_load_cancelled_from_within_is_an_error(flights: Flights[int]) -> None:
    """A cancellation that no caller asked for does not look to them as if they had been cancelled."""

    async def fail() -> int:
        raise asyncio.CancelledError

    with pytest.raises(CacheError, match="cancelled from within"):
        await flights.join("key", fail)

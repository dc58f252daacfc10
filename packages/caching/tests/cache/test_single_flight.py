"""Single flight: concurrent callers of a key share one in-flight load."""

import asyncio
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from tequipy_caching import CacheError, RecursiveLoad
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.metrics import Tally
from tequipy_caching.cache.single_flight import InFlightLoad, InFlightLoads


class Load:
    """A load that counts its calls and cancellations, waits for `go`, and returns 42 for each key."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self, in_flight: InFlightLoad[int]) -> Mapping[Key, int]:
        self.calls += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return dict.fromkeys(in_flight.keys, 42)


async def join(in_flight_loads: InFlightLoads[int], load: Any, key: str = "key") -> int:
    """Return the value of one key."""
    return (await in_flight_loads.join([key], load))[key]


async def start(in_flight_loads: InFlightLoads[int], load: Any, count: int) -> list[asyncio.Task[int]]:
    """Return tasks that all wait for one load."""
    tasks = [asyncio.create_task(join(in_flight_loads, load)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@pytest.fixture
def coalesced() -> Tally:
    return Tally()


@pytest.fixture
def in_flight_loads(coalesced: Tally) -> InFlightLoads[int]:
    return InFlightLoads("numbers", coalesced)


async def test_ten_thousand_misses_are_one_load(in_flight_loads: InFlightLoads[int], coalesced: Tally) -> None:
    """All callers during a load get its value, and are counted as coalesced."""
    load = Load()
    tasks = await start(in_flight_loads, load, 10_000)
    load.go.set()
    assert await asyncio.gather(*tasks) == [42] * 10_000
    assert load.calls == 1
    assert coalesced.count == 9_999


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_cancelling_one_caller_does_not_affect_others(in_flight_loads: InFlightLoads[int], leaver: int) -> None:
    """If any caller is cancelled, also the first, the others get the value of the same load."""
    load = Load()
    tasks = await start(in_flight_loads, load, 3)
    tasks.pop(leaver).cancel()
    await asyncio.sleep(0)
    load.go.set()
    assert await asyncio.gather(*tasks) == [42, 42]
    assert (load.calls, load.cancelled) == (1, 0)


async def test_cancelling_the_last_caller_cancels_the_load(in_flight_loads: InFlightLoads[int]) -> None:
    """A load is cancelled with its last caller, and the next caller starts another one."""
    load = Load()
    for task in await start(in_flight_loads, load, 3):
        task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert load.cancelled == 1
    load.go.set()
    assert await join(in_flight_loads, load) == 42
    assert load.calls == 2


async def test_all_callers_get_the_exception(in_flight_loads: InFlightLoads[int]) -> None:
    """All callers get the same exception with the traceback of the load, which does not grow."""
    depths: list[int] = []

    async def fail(_: InFlightLoad[int]) -> Mapping[Key, int]:
        await asyncio.sleep(0)
        raise LookupError("no such number")

    async def call() -> None:
        try:
            await join(in_flight_loads, fail)
        except LookupError as error:
            frames = traceback.extract_tb(error.__traceback__)
            assert frames[-1].name == "fail"
            depths.append(len(frames))

    await asyncio.gather(*(call() for _ in range(100)))
    assert len(depths) == 100
    assert len(set(depths)) == 1


async def test_an_invalidated_load_goes_on_for_its_callers(in_flight_loads: InFlightLoads[int]) -> None:
    """After an invalidation, later callers start a new load; earlier ones get the result of theirs."""
    first, second = Load(), Load()
    earlier = await start(in_flight_loads, first, 2)
    in_flight_loads.forget("key")
    later = await start(in_flight_loads, second, 2)
    second.go.set()
    assert await asyncio.gather(*later) == [42, 42]
    first.go.set()
    assert await asyncio.gather(*earlier) == [42, 42]
    assert (first.calls, second.calls) == (1, 1)


async def test_recursion_raises(in_flight_loads: InFlightLoads[int]) -> None:
    """A load that asks for its own key, directly or through another load, gets `RecursiveLoad`."""

    async def load(_: InFlightLoad[int]) -> Mapping[Key, int]:
        return {"key": await join(in_flight_loads, other, "other")}

    async def other(_: InFlightLoad[int]) -> Mapping[Key, int]:
        return {"other": await join(in_flight_loads, load)}

    with pytest.raises(RecursiveLoad, match="numbers"):
        await join(in_flight_loads, load)


async def test_a_task_of_a_finished_load_may_ask_for_its_key(in_flight_loads: InFlightLoads[int]) -> None:
    """A task that a load has started may ask for the load's key when the load is finished."""
    left_behind: list[asyncio.Task[int]] = []
    over = asyncio.Event()
    second = Load()
    second.go.set()

    async def later() -> int:
        await over.wait()
        return await join(in_flight_loads, second)

    async def load(_: InFlightLoad[int]) -> Mapping[Key, int]:
        left_behind.append(asyncio.create_task(later()))
        return {"key": 1}

    assert await join(in_flight_loads, load) == 1
    over.set()
    assert await left_behind[0] == 42


async def test_a_load_that_cancels_itself_is_an_error(in_flight_loads: InFlightLoads[int]) -> None:
    """A load that cancels itself is an error for its callers, and not a cancellation of them."""

    async def fail(_: InFlightLoad[int]) -> Mapping[Key, int]:
        raise asyncio.CancelledError

    with pytest.raises(CacheError, match="cancelled from within"):
        await join(in_flight_loads, fail)


async def test_several_keys_are_one_load(in_flight_loads: InFlightLoads[int], coalesced: Tally) -> None:
    """A load of several keys omits keys that are being loaded, and callers of its keys join it."""
    single, several = Load(), Load()
    one = asyncio.create_task(join(in_flight_loads, single, "a"))
    await asyncio.sleep(0)
    many = asyncio.create_task(in_flight_loads.join(["a", "b", "c"], several))
    await asyncio.sleep(0)
    other = asyncio.create_task(join(in_flight_loads, Load(), "b"))
    await asyncio.sleep(0)
    assert coalesced.count == 2
    single.go.set()
    several.go.set()
    assert await one == await other == 42
    assert await many == {"a": 42, "b": 42, "c": 42}
    assert (single.calls, several.calls) == (1, 1)


async def test_a_failed_load_releases_other_loads_of_its_caller(in_flight_loads: InFlightLoads[int]) -> None:
    """A caller of several loads that gets an exception of one leaves the others; their last caller cancels them."""

    async def fail(_: InFlightLoad[int]) -> Mapping[Key, int]:
        await asyncio.sleep(0)
        raise LookupError

    failing = asyncio.create_task(join(in_flight_loads, fail, "a"))
    await asyncio.sleep(0)
    slow = Load()
    with pytest.raises(LookupError):
        await in_flight_loads.join(["a", "b"], slow)
    await asyncio.sleep(0)
    assert slow.cancelled == 1
    with pytest.raises(LookupError):
        await failing


async def test_the_soft_timeout_returns_a_stale_value(in_flight_loads: InFlightLoads[int]) -> None:
    """A caller whose soft timeout ends gets a stale value if there is one, and the load goes on without callers."""
    load = Load()

    async def with_stale_value(in_flight: InFlightLoad[int]) -> Mapping[Key, int]:
        in_flight.stale_values = lambda: {"key": 41}
        return await load(in_flight)

    assert await in_flight_loads.join(["key"], with_stale_value, 0.001) == {"key": 41}
    assert load.cancelled == 0
    joined = asyncio.create_task(join(in_flight_loads, Load()))
    await asyncio.sleep(0)
    load.go.set()
    assert await joined == 42
    assert load.calls == 1


async def test_without_a_stale_value_the_soft_timeout_is_ignored(in_flight_loads: InFlightLoads[int]) -> None:
    """Without a stale value, a caller waits longer than the soft timeout."""
    load = Load()
    waiting = asyncio.create_task(in_flight_loads.join(["key"], load, 0.001))
    await asyncio.sleep(0.01)
    load.go.set()
    assert await waiting == {"key": 42}


async def test_a_background_load_can_be_joined_and_may_fail(in_flight_loads: InFlightLoads[int]) -> None:
    """Callers join a background load; if it fails without callers, no exception is reported."""
    load = Load()
    in_flight_loads.start_in_background("key", load)
    in_flight_loads.start_in_background("key", load)
    joined = asyncio.create_task(join(in_flight_loads, Load()))
    await asyncio.sleep(0)
    load.go.set()
    assert await joined == 42
    assert load.calls == 1

    async def fail(_: InFlightLoad[int]) -> Mapping[Key, int]:
        raise LookupError

    in_flight_loads.start_in_background("key", fail)
    await asyncio.sleep(0)
    await in_flight_loads.cancel_all()


async def test_closing_cancels_in_flight_loads(in_flight_loads: InFlightLoads[int]) -> None:
    """Closing a cache cancels its in-flight loads."""
    load = Load()
    in_flight_loads.start_in_background("key", load)
    await asyncio.sleep(0)
    await in_flight_loads.cancel_all()
    assert load.cancelled == 1

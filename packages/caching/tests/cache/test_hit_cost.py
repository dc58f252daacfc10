"""The cost of a hit in memory, in calls: unlike times, these are the same on every machine."""

from time import monotonic

import pytest
from cachetools import TTLCache

from tequipy_caching import Cache, CachePolicy
from tequipy_caching.cache.local_store import BoundedEntries, Memory
from tequipy_caching.cache.metrics import Tally
from tequipy_caching.testing import MemoryCacheManager
from tequipy_devstack.call_counts import calls_of

POLICY = CachePolicy(ttl=60)


@pytest.fixture
def numbers() -> Cache[int]:
    """A cache with the real store of L1."""
    cache = MemoryCacheManager({"numbers": POLICY}).cache("numbers", int)
    cache._memory = Memory(POLICY, BoundedEntries(POLICY, monotonic, Tally()), monotonic)  # type: ignore[attr-defined]
    return cache


@pytest.fixture
async def floor() -> int:
    """The calls of the cheapest cache on an event loop: a coroutine function over `TTLCache`."""
    entries: TTLCache[int, int] = TTLCache(10, 60)
    entries[1] = 1

    async def get(key: int) -> int | None:
        try:
            return entries[key]
        except KeyError:
            return None

    return await calls_of(get, 1)


async def test_a_hit_costs_as_much_as_the_floor(numbers: Cache[int], floor: int) -> None:
    """A hit by `get` makes at most 1.3 times the calls of the floor."""
    await numbers.set(1, 1)
    assert await calls_of(numbers.get, 1) <= 1.3 * floor


async def test_a_decorated_hit_costs_a_little_more(numbers: Cache[int], floor: int) -> None:
    """A hit by a decorated function makes at most 1.5 times the calls of the floor."""

    @numbers.cached("number:{number}")
    async def load(number: int) -> int:
        return number

    await numbers.set(load.key(1), 1)
    assert await calls_of(load, 1) <= 1.5 * floor

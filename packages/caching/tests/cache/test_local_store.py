"""The store of L1 is bounded, and never blocks the event loop."""

import pytest
from cachetools import TTLCache
from hypothesis import given
from hypothesis import strategies as st

from tequipy_caching import MISSING, CachePolicy
from tequipy_caching.cache.local_store import CHUNK, BoundedEntries, Entry, Memory
from tequipy_caching.cache.metrics import Tally
from tequipy_caching.testing import TurnableClock


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


def tier(policy: CachePolicy, clock: TurnableClock, evictions: Tally | None = None) -> BoundedEntries[int]:
    return BoundedEntries(policy, lambda: clock.seconds, evictions or Tally())


def memory(policy: CachePolicy, entries: BoundedEntries[int], clock: TurnableClock) -> Memory[int]:
    return Memory(policy, entries, lambda: clock.seconds)


def test_expired_entries_are_removed_in_chunks(clock: TurnableClock) -> None:
    """Entries that expire together are removed in chunks by later calls, until all are gone."""
    policy = CachePolicy(ttl=10, l1_maxsize=1000)
    entries = tier(policy, clock)
    held = memory(policy, entries, clock)
    for number in range(500):
        held.keep(number, number, 10, ttl=10)
    clock.advance(11)
    assert held.value(0) is MISSING
    sizes = []
    for number in range(1000, 1010):
        held.keep(number, number, 10, ttl=10)
        sizes.append(len(entries))
    assert sizes[0] == 500 - CHUNK + 1
    assert sizes[-1] == 10
    assert held.value(1000) == 1000


def test_evictions_are_counted(clock: TurnableClock) -> None:
    """A full L1 evicts the least recently used value and counts it; an expired value is not an eviction."""
    policy, evictions = CachePolicy(ttl=10, l1_maxsize=3), Tally()
    held = memory(policy, tier(policy, clock, evictions), clock)
    for number in range(3):
        held.keep(number, number, 10, ttl=10)
    assert held.fast_value(0, held.clock()) == 0
    held.keep(3, 3, 10, ttl=10)
    assert [held.fast_value(number, held.clock()) for number in range(4)] == [0, MISSING, 2, 3]
    assert evictions.count == 1
    clock.advance(11)
    held.keep(4, 4, 10, ttl=10)
    assert evictions.count == 1


STEPS = st.lists(st.tuples(st.sampled_from(["set", "get", "pop", "advance"]), st.integers(0, 5)), max_size=40)


@given(STEPS)
def test_it_keeps_what_a_ttl_cache_keeps(steps: list[tuple[str, int]]) -> None:
    """After any steps the unexpired entries, and which one is evicted next, are those of `cachetools.TTLCache`."""
    clock = TurnableClock()
    entries, model = tier(CachePolicy(ttl=10, l1_maxsize=3), clock), TTLCache[int, int](3, 10, lambda: clock.seconds)
    ends: dict[object, float] = {}
    for step, number in steps:
        if step == "set":
            entries[number] = Entry(number, None, ())
            model[number] = number
            ends[number] = clock.seconds + 10
        elif step == "pop":
            entries.pop(number, None)
            model.pop(number, None)
        elif step == "get":
            # The model does not count the use of an expired entry, which `Memory` never asks for.
            assert number not in model or entries[number].value == model[number]
        else:
            clock.advance(number)
        assert {key for key in entries if clock.seconds < ends[key]} == set(model)
        assert len(entries) <= 3


def test_each_entry_has_its_own_expiry(clock: TurnableClock) -> None:
    """An entry with a shorter ttl expires earlier; `l1_ttl` limits all ttls, and no ttl exceeds the policy's."""
    policy = CachePolicy(ttl=10, l1_ttl=5)
    held = memory(policy, tier(policy, clock), clock)
    held.keep("short", 1, 2, ttl=10)
    held.keep("long", 1, 9, ttl=10)
    clock.advance(2)
    assert [held.fast_value(key, held.clock()) for key in ("short", "long")] == [MISSING, 1]
    clock.advance(3)
    assert held.fast_value("long", held.clock()) is MISSING


def test_a_stale_value_outlives_its_ttl(clock: TurnableClock) -> None:
    """With `fail_safe`, an entry is kept after its ttl, for as long as it may be served stale."""
    policy = CachePolicy(ttl=10, fail_safe=100, fail_safe_throttle=5)
    held = memory(policy, tier(policy, clock), clock)
    held.keep("ada", 1, 10, ttl=10)
    clock.advance(50)
    assert (held.value("ada"), held.stale_value("ada")) == (MISSING, 1)
    held.serve_stale("ada")
    assert held.fast_value("ada", held.clock()) == 1
    clock.advance(5)
    assert held.fast_value("ada", held.clock()) is MISSING
    clock.advance(56)
    assert held.stale_value("ada") is MISSING


def test_a_deleted_tag_is_forgotten(clock: TurnableClock) -> None:
    """A deleted tag leaves no object once the values with it are gone."""
    policy = CachePolicy(ttl=10)
    held = memory(policy, tier(policy, clock), clock)
    held.keep("ada", 1, 10, ttl=10, tags=["red"])
    assert list(held._tags) == ["red"]
    held.drop("ada")
    assert list(held._tags) == []

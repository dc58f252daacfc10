"""The first tier: bounded, and never holding up the event loop."""

import pytest

from tequipy_caching import MISSING, CachePolicy
from tequipy_caching.domain.memory import Memory
from tequipy_caching.domain.metrics import Tally
from tequipy_caching.infrastructure.memory import CHUNK, MemoryTier
from tequipy_caching.testing import TurnableClock


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


def tier(policy: CachePolicy, clock: TurnableClock, evictions: Tally | None = None) -> MemoryTier[int]:
    return MemoryTier(policy, lambda: clock.seconds, evictions or Tally())


def memory(policy: CachePolicy, entries: MemoryTier[int], clock: TurnableClock) -> Memory[int]:
    return Memory(policy, entries, lambda: clock.seconds)


def test_expired_entries_leave_in_chunks(clock: TurnableClock) -> None:
    """However many expire at once, each later entry makes a few of them leave, and in the end all are gone."""
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


def test_a_full_memory_evicts_and_counts(clock: TurnableClock) -> None:
    """Beyond its size the least recently used value leaves, and is counted; an expired one is none."""
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


def test_each_entry_has_a_deadline_of_its_own(clock: TurnableClock) -> None:
    """What had less left, or was given less, ends earlier; l1_ttl ends all of them, and a life may not exceed it."""
    policy = CachePolicy(ttl=10, l1_ttl=5)
    held = memory(policy, tier(policy, clock), clock)
    held.keep("short", 1, 2, ttl=10)
    held.keep("long", 1, 9, ttl=10)
    clock.advance(2)
    assert [held.fast_value(key, held.clock()) for key in ("short", "long")] == [MISSING, 1]
    clock.advance(3)
    assert held.fast_value("long", held.clock()) is MISSING


def test_a_stand_in_outlives_its_value(clock: TurnableClock) -> None:
    """With fail-safe a value is held beyond its life, for as long as it may stand in."""
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
    """A tag lives as long as a value that has it: nothing of it remains."""
    policy = CachePolicy(ttl=10)
    held = memory(policy, tier(policy, clock), clock)
    held.keep("ada", 1, 10, ttl=10, tags=["red"])
    assert list(held._tags) == ["red"]
    held.drop("ada")
    assert list(held._tags) == []

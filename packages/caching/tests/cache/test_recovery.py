"""The recovery queue: changes that could not reach Redis are kept, bounded, and never lost."""

import asyncio
from collections.abc import Hashable, Mapping

import pytest

from tequipy_caching import CacheUnavailable
from tequipy_caching.cache.recovery import Recoverable, RecoveryQueue


class Log(Recoverable[int]):
    """A target that keeps the largest number of each key, records replays in a list, and refuses while it is away."""

    def __init__(self) -> None:
        self.away = False
        self.sent: list[Mapping[Hashable, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def merge(self, old: int, new: int) -> int:
        return max(old, new)

    def overflow(self) -> Mapping[Hashable, int]:
        return {"everything": 0}

    async def replay(self, entries: Mapping[Hashable, int]) -> None:
        await self.gate.wait()
        if self.away:
            raise CacheUnavailable
        self.sent.append(entries)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def woken() -> list[None]:
    return []


@pytest.fixture
def queue(log: Log, woken: list[None]) -> RecoveryQueue:
    queue = RecoveryQueue(lambda: woken.append(None), limit=3)
    queue.register("log", log)
    queue.register("other", Log())
    return queue


async def test_entries_of_one_key_are_merged(queue: RecoveryQueue, log: Log, woken: list[None]) -> None:
    """Entries of one key are merged, replayed once, and then removed."""
    for number in (1, 3, 2):
        queue.add("log", "a", number)
    queue.add("log", "b", 1)
    assert len(queue) == 2
    assert woken
    assert queue.holds("log", "a")
    assert not queue.holds("other", "a")
    await queue.replay()
    assert log.sent == [{"a": 3, "b": 1}]
    assert len(queue) == 0
    assert not queue.holds("log", "a")


async def test_a_failed_replay_keeps_its_entries(queue: RecoveryQueue, log: Log) -> None:
    """A failed replay raises, and all entries stay for the next one."""
    queue.add("log", "a", 1)
    log.away = True
    with pytest.raises(CacheUnavailable):
        await queue.replay()
    log.away = False
    await queue.replay()
    assert log.sent == [{"a": 1}]


async def test_an_entry_added_during_a_replay_is_replayed_too(queue: RecoveryQueue, log: Log) -> None:
    """An entry that is added while an equal one is being replayed is another change, and is replayed too."""
    queue.add("log", "a", 1)
    log.gate.clear()
    replaying = asyncio.create_task(queue.replay())
    await asyncio.sleep(0)
    queue.add("log", "a", 1)
    log.gate.set()
    await replaying
    assert log.sent == [{"a": 1}, {"a": 1}]


async def test_a_full_queue_becomes_one_entry(queue: RecoveryQueue, log: Log) -> None:
    """Above the limit, the few entries that stand for all replace those of the largest topic; others stay."""
    queue.add("other", "x", 1)
    for key in "abc":
        queue.add("log", key, 1)
    assert len(queue) == 2
    queue.add("log", "d", 1)
    await queue.replay()
    assert log.sent == [{"everything": 0, "d": 1}]

"""What could not reach Redis is kept, bounded, and lost by nobody."""

import asyncio
from collections.abc import Hashable, Mapping

import pytest

from tequipy_caching import CacheUnavailable
from tequipy_caching.domain.recovery import Recoverable, RecoveryQueue


class Log(Recoverable[int]):
    """Keeps the largest number of each key, and replays into a list; refuses while it is away."""

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


async def test_entries_of_one_key_are_one(queue: RecoveryQueue, log: Log, woken: list[None]) -> None:
    """What waits for a key is merged, replayed once, and then waits no more."""
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


async def test_what_cannot_be_sent_is_kept(queue: RecoveryQueue, log: Log) -> None:
    """A replay that fails says so, and all entries wait for the next one."""
    queue.add("log", "a", 1)
    log.away = True
    with pytest.raises(CacheUnavailable):
        await queue.replay()
    log.away = False
    await queue.replay()
    assert log.sent == [{"a": 1}]


async def test_what_is_added_during_a_replay_is_sent_too(queue: RecoveryQueue, log: Log) -> None:
    """An equal entry that comes while its older twin is on the way is another change, and is replayed as well."""
    queue.add("log", "a", 1)
    log.gate.clear()
    replaying = asyncio.create_task(queue.replay())
    await asyncio.sleep(0)
    queue.add("log", "a", 1)
    log.gate.set()
    await replaying
    assert log.sent == [{"a": 1}, {"a": 1}]


async def test_a_full_queue_becomes_one_entry(queue: RecoveryQueue, log: Log) -> None:
    """Beyond the limit the largest topic's entries become the few that stand for all; other topics keep theirs."""
    queue.add("other", "x", 1)
    for key in "abc":
        queue.add("log", key, 1)
    assert len(queue) == 2
    queue.add("log", "d", 1)
    await queue.replay()
    assert log.sent == [{"everything": 0, "d": 1}]

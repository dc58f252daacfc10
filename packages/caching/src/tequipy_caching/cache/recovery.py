"""The recovery queue keeps changes that could not reach Redis until it is reachable again."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from math import inf
from time import monotonic
from typing import Any, Final, Generic, TypeVar

E = TypeVar("E")

TRUST_AFTER: Final = 30.0
"""Seconds within which every process replays its changes once Redis accepts them: `circuit_breaker.LONGEST_PAUSE`."""
LIMIT: Final = 10_000
"""How many entries a process keeps before those of the largest topic are replaced by its `overflow`."""


class Recoverable(ABC, Generic[E]):
    """An owner of queued entries: a cache, a set or the limiter. Each has a topic, which separates its entries."""

    @abstractmethod
    def merge(self, old: E, new: E) -> E:
        """Return one entry that has the effect of two of the same key."""

    @abstractmethod
    def overflow(self) -> Mapping[Hashable, E]:
        """Return a few entries that have the effect of any number of entries; for a cache, that it is cleared."""

    @abstractmethod
    async def replay(self, entries: Mapping[Hashable, E]) -> None:
        """Send entries to Redis; must be idempotent. If it raises `CacheUnavailable`, the entries stay in the queue."""


class RecoveryQueue:
    """A bounded queue that merges entries of the same key; it calls `wake` when there is an entry to replay."""

    def __init__(self, wake: Callable[[], None], limit: int = LIMIT) -> None:
        self._wake = wake
        self._limit = limit
        self._owners: dict[str, Recoverable[Any]] = {}
        self._pending: dict[str, dict[Hashable, tuple[object, Any]]] = {}
        """By topic and key: the entry, and an object that identifies it (see `add`)."""
        self._replaying = asyncio.Lock()
        self._distrusted_until = -inf
        """On the monotonic clock; inf while Redis refuses writes, -inf if it never has."""

    @property
    def distrusts_all(self) -> bool:
        """Whether other processes may have pending changes that this process has not received."""
        return self._distrusted_until > -inf and monotonic() < self._distrusted_until

    def distrust(self) -> None:
        """Do not use values from Redis until it accepts changes again and the other processes have replayed theirs."""
        self._distrusted_until = inf

    def trust_soon(self) -> None:
        """Use values from Redis again after `TRUST_AFTER`, when the other processes have replayed their changes."""
        if self._distrusted_until == inf:
            self._distrusted_until = monotonic() + TRUST_AFTER

    def __len__(self) -> int:
        return sum(map(len, list(self._pending.values())))  # a copy, because metrics read it in other threads

    def register(self, topic: str, owner: Recoverable[Any]) -> None:
        """Set the owner of a topic's entries."""
        self._owners[topic] = owner

    def add(self, topic: str, key: Hashable, entry: Any) -> None:  # noqa: ANN401 -- each topic has entries of its own
        """Queue an entry, merged with the queued entry of the same key."""
        owner, pending = self._owners[topic], self._pending.setdefault(topic, {})
        known = pending.get(key)
        # The object distinguishes this entry from an equal one that is being replayed now, because both must be sent.
        pending[key] = (object(), entry if known is None else owner.merge(known[1], entry))
        if len(self) > self._limit:
            largest = max(self._pending, key=lambda name: len(self._pending[name]))
            replacement = self._owners[largest].overflow()
            self._pending[largest] = {key: (object(), entry) for key, entry in replacement.items()}
        self._wake()

    def holds(self, topic: str, key: Hashable) -> bool:
        """Return whether an entry of the key is queued, so that its value in Redis is old."""
        return key in self._pending.get(topic, ())

    async def replay(self) -> None:
        """Send all entries until the queue is empty; raises what the owners' `replay` raises."""
        async with self._replaying:
            while self._pending:
                topic, pending = next(iter(self._pending.items()))
                sent = dict(pending)
                await self._owners[topic].replay({key: entry for key, (_, entry) in sent.items()})
                left = {key: entry for key, entry in self._pending[topic].items() if sent.get(key) != entry}
                if left:  # entries that were added during the replay
                    self._pending[topic] = left
                else:
                    del self._pending[topic]

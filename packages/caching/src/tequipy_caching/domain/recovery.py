"""The recovery queue: what could not reach Redis, kept until it can."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from math import inf
from time import monotonic
from typing import Any, Final, Generic, TypeVar

E = TypeVar("E")

TRUST_AFTER: Final = 30.0
"""Seconds after which every process has replayed its changes, once Redis takes them again: its longest pause."""
LIMIT: Final = 10_000
"""How many entries a process keeps before those of the largest topic become one."""


class Recoverable(ABC, Generic[E]):
    """Whose changes are replayed: a cache, or anything else that writes to Redis under a topic of its own."""

    @abstractmethod
    def merge(self, old: E, new: E) -> E:
        """Return the one entry that stands for two of the same key."""

    @abstractmethod
    def overflow(self) -> Mapping[Hashable, E]:
        """Return the few entries that stand for any number: for a cache, that it is cleared."""

    @abstractmethod
    async def replay(self, entries: Mapping[Hashable, E]) -> None:
        """Send entries to Redis; raises `CacheUnavailable`, and they are kept. Must be harmless when done twice."""


class RecoveryQueue:
    """Bounded and coalescing: two entries of one key are one; `wake` is called when there is something to replay."""

    def __init__(self, wake: Callable[[], None], limit: int = LIMIT) -> None:
        self._wake = wake
        self._limit = limit
        self._sources: dict[str, Recoverable[Any]] = {}
        self._pending: dict[str, dict[Hashable, tuple[object, Any]]] = {}
        self._replaying = asyncio.Lock()
        self._distrusted_until = -inf

    @property
    def distrusts_all(self) -> bool:
        """Whether other processes may have changes waiting that this one has not been told."""
        return self._distrusted_until > -inf and monotonic() < self._distrusted_until

    def distrust(self) -> None:
        """Believe nothing that Redis holds until it takes changes again, and the others have made theirs."""
        self._distrusted_until = inf

    def trust_soon(self) -> None:
        """Believe Redis again when the others have had their time: it takes changes from now on."""
        if self._distrusted_until == inf:
            self._distrusted_until = monotonic() + TRUST_AFTER

    def __len__(self) -> int:
        return sum(map(len, list(self._pending.values())))  # a copy: read by the metrics from other threads

    def register(self, topic: str, source: Recoverable[Any]) -> None:
        """Name the one whose entries stand under a topic."""
        self._sources[topic] = source

    def add(self, topic: str, key: Hashable, entry: Any) -> None:  # noqa: ANN401 -- each topic has entries of its own
        """Keep an entry until it is replayed, merged with the one of the same key."""
        source, pending = self._sources[topic], self._pending.setdefault(topic, {})
        known = pending.get(key)
        # The object tells this entry from one that is being replayed right now.
        pending[key] = (object(), entry if known is None else source.merge(known[1], entry))
        if len(self) > self._limit:
            largest = max(self._pending, key=lambda name: len(self._pending[name]))
            few = self._sources[largest].overflow()
            self._pending[largest] = {key: (object(), entry) for key, entry in few.items()}
        self._wake()

    def holds(self, topic: str, key: Hashable) -> bool:
        """Tell whether an entry of a key waits: what Redis has of it is older."""
        return key in self._pending.get(topic, ())

    async def replay(self) -> None:
        """Send all that waits, until nothing does; raises what the sources raise."""
        async with self._replaying:
            while self._pending:
                topic, pending = next(iter(self._pending.items()))
                sent = dict(pending)
                await self._sources[topic].replay({key: entry for key, (_, entry) in sent.items()})
                left = {key: entry for key, entry in self._pending[topic].items() if sent.get(key) != entry}
                if left:  # added meanwhile
                    self._pending[topic] = left
                else:
                    del self._pending[topic]

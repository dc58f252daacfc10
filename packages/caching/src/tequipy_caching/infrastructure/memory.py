"""The first tier's store: bounded by number and by the longest life."""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from cachetools import Cache, TTLCache

from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.memory import Entry
from tequipy_caching.domain.metrics import Tally
from tequipy_caching.domain.policies import CachePolicy

V = TypeVar("V")

CHUNK: Final = 64
"""How many expired entries leave at once: thousands would hold the event loop."""


class MemoryTier(TTLCache[Key, Entry[V]], Generic[V]):
    """A `TTLCache` whose expired entries leave in small chunks; each entry has earlier deadlines of its own."""

    def __init__(self, policy: CachePolicy, clock: Callable[[], float], evictions: Tally) -> None:
        longest = min(policy.ttl, policy.l1_ttl or policy.ttl) + policy.fail_safe
        super().__init__(policy.l1_maxsize, max([longest, *policy.negative.values()]), clock)
        self._evictions = evictions

    def __len__(self) -> int:
        """Return how many entries are held, expired ones too; read by the metrics from other threads."""
        return Cache.__len__(self)

    def expire(self, time: float | None = None) -> list[tuple[Key, Entry[V]]]:
        """Remove a chunk of the expired entries, oldest first, and return them."""
        now = self.timer() if time is None else time
        # TTLCache would remove all of them in one go; what it knows them by is private to it.
        root: Any = self._TTLCache__root  # type: ignore[attr-defined]  # -- as above
        links: Any = self._TTLCache__links  # type: ignore[attr-defined]  # -- as above
        expired: list[tuple[Key, Entry[V]]] = []
        while len(expired) < CHUNK and root.next is not root and now >= root.next.expires:
            key = root.next.key
            expired.append((key, Cache.__getitem__(self, key)))
            Cache.__delitem__(self, key)
            links.pop(key).unlink()
        return expired

    def popitem(self) -> tuple[Key, Entry[V]]:
        """Evict the least recently used entry."""
        self._evictions.count += 1
        return super().popitem()

"""The store of L1, bounded by the number of entries and by the longest ttl."""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from cachetools import Cache, TTLCache

from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.memory import Entry
from tequipy_caching.domain.metrics import Tally
from tequipy_caching.domain.policies import CachePolicy

V = TypeVar("V")

CHUNK: Final = 64
"""How many expired entries are removed at once: removing thousands would block the event loop."""


class MemoryTier(TTLCache[Key, Entry[V]], Generic[V]):
    """A `TTLCache` that removes expired entries in small chunks. Each entry also has its own, earlier expiry."""

    def __init__(self, policy: CachePolicy, clock: Callable[[], float], evictions: Tally) -> None:
        longest = min(policy.ttl, policy.l1_ttl or policy.ttl) + policy.fail_safe
        super().__init__(policy.l1_maxsize, max([longest, *policy.negative.values()]), clock)
        self._evictions = evictions

    def __len__(self) -> int:
        """Return the number of entries, expired ones included. The metrics call this in other threads."""
        return Cache.__len__(self)

    def expire(self, time: float | None = None) -> list[tuple[Key, Entry[V]]]:
        """Remove a chunk of the expired entries, oldest first, and return them."""
        now = self.timer() if time is None else time
        # TTLCache would remove all of them at once. Its linked list of expiries is private, so name mangling is needed.
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

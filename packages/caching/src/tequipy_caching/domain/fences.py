"""Fences: what was read before an invalidation is not kept after it."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tequipy_caching.domain.keys import Key

LONGEST_JOURNAL: Final = 10_000
"""Keys; one more, while a fence is held from before them all, becomes a breach of everything: wrong for nobody."""


class Breach(NamedTuple):
    """The numbers of the last breaches at a key."""

    any: int
    fatal: int
    """Of those after which no older value may stand in."""


class Fence:
    """Held while somebody is about to keep values in memory, from before they are read until they are kept."""

    __slots__ = ("_fences", "since")

    def __init__(self, fences: "Fences", since: int) -> None:
        self._fences = fences
        self.since = since
        """The number of the last breach before it; -1 once it is not held any more."""

    def whole(self, key: Key) -> bool:
        """Tell whether the value of a key may be kept: it cannot have become an old one meanwhile."""
        return self._fences.last(key).any <= self.since

    def stands(self, key: Key) -> bool:
        """Tell whether a value from before may still stand in for one that cannot be loaded."""
        return self._fences.last(key).fatal <= self.since


class Fences:
    """The fences of one cache in this process.

    A journal of breaches, as long as somebody holds a fence from before them: so a fence costs the same for a hundred
    keys as for one, and a breach the same however many hold one.
    """

    def __init__(self) -> None:
        self._number = 0
        self._everywhere = Breach(0, 0)
        self._breaches: OrderedDict[Key, Breach] = OrderedDict()  # the oldest first, as below
        self._held: OrderedDict[Fence, None] = OrderedDict()

    @contextmanager
    def hold(self) -> Iterator[Fence]:
        """Hold a fence, from before values are read until they are kept."""
        fence = Fence(self, self._number)
        self._held[fence] = None
        try:
            yield fence
        finally:
            fence.since = -1
            del self._held[fence]
            self._forget()

    def last(self, key: Key) -> Breach:
        """Return the last breaches at a key, as far as anybody can ask for them."""
        return self._breaches.get(key, self._everywhere)

    def breach(self, key: Key, *, stands: bool = False) -> None:
        """Take the permission to keep the value of a key from all who hold a fence now."""
        if self._held:
            self._number += 1
            self._breaches[key] = Breach(self._number, self.last(key).fatal if stands else self._number)
            self._breaches.move_to_end(key)
            if len(self._breaches) > LONGEST_JOURNAL:
                self.breach_all()

    def breach_all(self) -> None:
        """Take every permission."""
        self._number += 1
        self._everywhere = Breach(self._number, self._number)
        self._breaches.clear()

    def _forget(self) -> None:
        oldest = next(iter(self._held)).since if self._held else self._number
        while self._breaches and next(iter(self._breaches.values())).any <= oldest:
            self._breaches.popitem(last=False)

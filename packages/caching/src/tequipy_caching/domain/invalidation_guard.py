"""Fences: what was read before an invalidation is not kept after it."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tequipy_caching.domain.keys import Key

MAX_JOURNAL_LENGTH: Final = 10_000
"""Keys; one more, while a fence is held from before them all, becomes a breach of everything: wrong for nobody."""


class LastInvalidations(NamedTuple):
    """The numbers of the last breaches at a key."""

    latest: int
    hard: int
    """Of those after which no older value may stand in."""


class InvalidationGuard:
    """Held while somebody is about to keep values in memory, from before they are read until they are kept."""

    __slots__ = ("_guards", "since")

    def __init__(self, guards: "InvalidationGuards", since: int) -> None:
        self._guards = guards
        self.since = since
        """The number of the last breach before it; -1 once it is not held any more."""

    def is_current(self, key: Key) -> bool:
        """Tell whether the value of a key may be kept: it cannot have become an old one meanwhile."""
        return self._guards.last(key).latest <= self.since

    def may_serve_stale(self, key: Key) -> bool:
        """Tell whether a value from before may still stand in for one that cannot be loaded."""
        return self._guards.last(key).hard <= self.since


class InvalidationGuards:
    """The fences of one cache in this process.

    A journal of breaches, as long as somebody holds a fence from before them: so a fence costs the same for a hundred
    keys as for one, and a breach the same however many hold one.
    """

    def __init__(self) -> None:
        self._number = 0
        self._of_all_keys = LastInvalidations(0, 0)
        self._invalidations: OrderedDict[Key, LastInvalidations] = OrderedDict()  # the oldest first, as below
        self._held: OrderedDict[InvalidationGuard, None] = OrderedDict()

    @contextmanager
    def hold(self) -> Iterator[InvalidationGuard]:
        """Hold a fence, from before values are read until they are kept."""
        guard = InvalidationGuard(self, self._number)
        self._held[guard] = None
        try:
            yield guard
        finally:
            guard.since = -1
            del self._held[guard]
            self._forget()

    def last(self, key: Key) -> LastInvalidations:
        """Return the last breaches at a key, as far as anybody can ask for them."""
        return self._invalidations.get(key, self._of_all_keys)

    def invalidate(self, key: Key, *, may_serve_stale: bool = False) -> None:
        """Take the permission to keep the value of a key from all who hold a fence now."""
        if self._held:
            self._number += 1
            self._invalidations[key] = LastInvalidations(
                self._number, self.last(key).hard if may_serve_stale else self._number
            )
            self._invalidations.move_to_end(key)
            if len(self._invalidations) > MAX_JOURNAL_LENGTH:
                self.invalidate_all()

    def invalidate_all(self) -> None:
        """Take every permission."""
        self._number += 1
        self._of_all_keys = LastInvalidations(self._number, self._number)
        self._invalidations.clear()

    def _forget(self) -> None:
        oldest = next(iter(self._held)).since if self._held else self._number
        while self._invalidations and next(iter(self._invalidations.values())).latest <= oldest:
            self._invalidations.popitem(last=False)

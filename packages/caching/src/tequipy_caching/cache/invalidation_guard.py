"""Invalidation guards keep values that were read before an invalidation from being stored after it."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tequipy_caching.cache.keys import Key

MAX_JOURNAL_LENGTH: Final = 10_000
"""The most keys in the journal. If one more is added, all keys are invalidated instead, which is safe: it can only
discard values that are still current."""


class LastInvalidations(NamedTuple):
    """The numbers of the last invalidations of a key."""

    latest: int
    hard: int
    """The last one after which the stale value must not be served either: any except `expire`."""


class InvalidationGuard:
    """Tells whether keys were invalidated since it began; held from before values are read until they are kept."""

    __slots__ = ("_guards", "since")

    def __init__(self, guards: "InvalidationGuards", since: int) -> None:
        self._guards = guards
        self.since = since
        """The number of the last invalidation before it; -1 after it was released, so that no key is current."""

    def is_current(self, key: Key) -> bool:
        """Return whether the value of a key may be kept, because the key was not invalidated since the guard began."""
        return self._guards.last(key).latest <= self.since

    def may_serve_stale(self, key: Key) -> bool:
        """Return whether an older value of a key may be served if the key cannot be loaded."""
        return self._guards.last(key).hard <= self.since


class InvalidationGuards:
    """The invalidation guards of one cache in this process.

    They share a journal of invalidations, which keeps an entry as long as a guard that began before it is held. So the
    cost of a guard does not depend on the number of keys, nor that of an invalidation on the number of guards.
    """

    def __init__(self) -> None:
        self._number = 0
        """The number of invalidations until now."""
        self._of_all_keys = LastInvalidations(0, 0)
        self._journal: OrderedDict[Key, LastInvalidations] = OrderedDict()
        """The invalidated keys, oldest invalidation first."""
        self._held: OrderedDict[InvalidationGuard, None] = OrderedDict()
        """The guards that are held, oldest first."""

    @contextmanager
    def hold(self) -> Iterator[InvalidationGuard]:
        """Hold a guard; enter before values are read, and leave after they are kept."""
        guard = InvalidationGuard(self, self._number)
        self._held[guard] = None
        try:
            yield guard
        finally:
            guard.since = -1
            del self._held[guard]
            self._trim_journal()

    def last(self, key: Key) -> LastInvalidations:
        """Return the last invalidations of a key, exact for those that are newer than the oldest held guard."""
        return self._journal.get(key, self._of_all_keys)

    def invalidate(self, key: Key, *, may_serve_stale: bool = False) -> None:
        """Make the key not current for all guards that are held now."""
        if self._held:  # otherwise no guard needs the entry
            self._number += 1
            self._journal[key] = LastInvalidations(
                self._number, self.last(key).hard if may_serve_stale else self._number
            )
            self._journal.move_to_end(key)
            if len(self._journal) > MAX_JOURNAL_LENGTH:
                self.invalidate_all()

    def invalidate_all(self) -> None:
        """Make all keys not current for all guards that are held now, and forbid their stale values."""
        self._number += 1
        self._of_all_keys = LastInvalidations(self._number, self._number)
        self._journal.clear()

    def _trim_journal(self) -> None:
        """Remove the entries that are older than every held guard."""
        oldest = next(iter(self._held)).since if self._held else self._number
        while self._journal and next(iter(self._journal.values())).latest <= oldest:
            self._journal.popitem(last=False)

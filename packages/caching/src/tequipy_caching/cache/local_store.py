"""L1: the entries in the memory of a process, bounded in number, and how long they are fresh or may be served stale."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from math import inf
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.metrics import Tally
from tequipy_caching.cache.policies import CachePolicy
from tequipy_caching.cache.ports import MISSING, Missing

V = TypeVar("V")

CHUNK: Final = 64
"""How many expired entries are removed at once: removing thousands would block the event loop."""


class Tag:
    """A tag that entries refer to, so that one assignment invalidates all of them."""

    __slots__ = ("__weakref__", "deleted")

    def __init__(self) -> None:
        self.deleted = False


class Entry(Generic[V]):
    """A value or a cached exception, with its times on the monotonic clock of the process."""

    __slots__ = ("error", "fast_until", "fresh_until", "refresh_at", "stale_until", "tags", "value")

    def __init__(self, value: V | Missing, error: Exception | None, tags: tuple[Tag, ...]) -> None:
        self.value = value
        self.error = error
        self.tags = tags
        self.fast_until = -inf
        """Until then a hit needs no other check; -inf for an exception, and for a value with tags (see `find`)."""
        self.refresh_at = inf
        """From then on a hit starts a refresh ahead."""
        self.fresh_until = -inf
        self.stale_until = -inf
        """Until then the value may be served if a load fails."""


class Memory(Generic[V]):
    """L1 of one cache: decides whether entries are fresh or stale. The mapping `entries` bounds their number."""

    def __init__(self, policy: CachePolicy, entries: MutableMapping[Key, Entry[V]], clock: Callable[[], float]) -> None:
        self.clock = clock
        self._policy = policy
        self._entries = entries
        self._longest = min(policy.ttl, policy.l1_ttl or policy.ttl)
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        self.enabled = "l1" in policy.tiers
        """Whether the policy has a tier L1; otherwise nothing is kept."""

    def fast_value(self, key: Key, now: float) -> V | Missing:
        """Return the value if the entry is fresh and needs no further checks, which is so for most hits."""
        try:
            entry = self._entries[key]
        except KeyError:
            return MISSING
        return entry.value if now < entry.fast_until else MISSING

    def find(self, key: Key) -> Entry[V] | None:
        """Return the entry if it is fresh; it may hold a cached exception."""
        if not self.enabled:
            return None
        try:
            entry = self._entries[key]
        except KeyError:
            return None
        if self.clock() >= entry.fresh_until or (entry.tags and any(tag.deleted for tag in entry.tags)):
            return None
        return entry

    def value(self, key: Key) -> V | Missing:
        """Return the value if it is fresh, else `MISSING`."""
        entry = self.find(key)
        return MISSING if entry is None else entry.value

    def stale_value(self, key: Key) -> V | Missing:
        """Return the value, fresh or not, unless its ttl ended longer ago than the policy's `fail_safe`."""
        entry = self._entries.get(key)
        if entry is None or self.clock() >= entry.stale_until or any(tag.deleted for tag in entry.tags):
            return MISSING
        return entry.value

    def keep(self, key: Key, value: V, left: float, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep a value for `left` of its `ttl` seconds, or less if the policy's `l1_ttl` is shorter."""
        if not self.enabled:
            return
        entry = Entry(value, None, tuple([self._tag(tag) for tag in tags]))
        now = self.clock()
        entry.fresh_until = now + min(left, self._longest)
        entry.stale_until = entry.fresh_until + self._policy.fail_safe
        if self._policy.refresh_ahead is not None:
            entry.refresh_at = now + left - ttl * (1 - self._policy.refresh_ahead)
        if not entry.tags:
            entry.fast_until = min(entry.fresh_until, entry.refresh_at)
        self._put(key, entry)

    def mark_refreshing(self, entry: Entry[V]) -> None:
        """Record that a refresh ahead has started, so that later hits until the end of the ttl do not start another."""
        entry.refresh_at = inf
        if not entry.tags:
            entry.fast_until = entry.fresh_until

    def keep_error(self, key: Key, error: Exception, ttl: float, *, tags: Iterable[str] = ()) -> None:
        """Keep a negative entry: an exception instead of a value."""
        entry: Entry[V] = Entry(MISSING, error, tuple([self._tag(tag) for tag in tags]))
        entry.fresh_until = self.clock() + ttl
        self._put(key, entry)

    def keep_stale(self, key: Key, value: V, left: float, *, tags: Iterable[str] = ()) -> None:
        """Keep a stale value, usable for `left` seconds more, and serve it for `fail_safe_throttle` seconds."""
        entry = Entry(value, None, tuple([self._tag(tag) for tag in tags]))
        entry.stale_until = self.clock() + left
        self._put(key, entry)
        self.serve_stale(key)

    def serve_stale(self, key: Key) -> None:
        """Treat a stale value as fresh for `fail_safe_throttle` seconds, before a failing load is repeated."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.fresh_until = min(entry.stale_until, self.clock() + self._policy.fail_safe_throttle)
            if not entry.tags:
                entry.fast_until = entry.fresh_until

    def drop(self, key: Key) -> None:
        """Remove an entry."""
        self._entries.pop(key, None)

    def expire(self, key: Key) -> None:
        """End the ttl of a value; it may still be served stale."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.fresh_until = entry.fast_until = -inf

    def drop_tag(self, tag: str) -> None:
        """Invalidate all entries of a tag."""
        known = self._tags.pop(tag, None)
        if known is not None:
            known.deleted = True

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def _put(self, key: Key, entry: Entry[V]) -> None:
        if self.enabled:
            self._entries[key] = entry

    def _tag(self, tag: str) -> Tag:
        known = self._tags.get(tag)
        if known is None:
            known = self._tags[tag] = Tag()
        return known


class BoundedEntries(MutableMapping[Key, Entry[V]], Generic[V]):
    """The entries of one cache: the least recently used one is evicted when there are `l1_maxsize` of them.

    Each is removed after the longest time that any entry of the policy can be of use; each has its own expiry besides.
    Expired entries leave in small chunks, so that they do not block the event loop: `cachetools.TTLCache` would remove
    all of them at once.
    """

    def __init__(self, policy: CachePolicy, clock: Callable[[], float], evictions: Tally) -> None:
        longest = min(policy.ttl, policy.l1_ttl or policy.ttl) + policy.fail_safe
        self._ttl = max([longest, *policy.negative.values()])
        self._maxsize, self._clock, self._evictions = policy.l1_maxsize, clock, evictions
        self._entries: OrderedDict[Key, Entry[V]] = OrderedDict()
        """The least recently used entry first."""
        self._ends: OrderedDict[Key, float] = OrderedDict()
        """When each entry is removed, the earliest first: all of them are kept equally long."""

    def __getitem__(self, key: Key) -> Entry[V]:
        """Return an entry, fresh or not, and mark it as the most recently used; raises `KeyError`."""
        entry = self._entries[key]
        self._entries.move_to_end(key)
        return entry

    def __setitem__(self, key: Key, entry: Entry[V]) -> None:
        """Keep an entry, after a chunk of expired ones was removed, or one was evicted to make room."""
        now = self._clock()
        self._remove_expired(now)
        if key not in self._entries and len(self._entries) >= self._maxsize:
            evicted, _ = self._entries.popitem(last=False)
            del self._ends[evicted]
            self._evictions.count += 1
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._ends[key] = now + self._ttl
        self._ends.move_to_end(key)

    def __delitem__(self, key: Key) -> None:
        """Remove an entry; raises `KeyError`."""
        del self._entries[key]
        del self._ends[key]

    def __iter__(self) -> Iterator[Key]:
        """Return an iterator over the keys."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of entries, expired ones included; the metrics call this in another thread."""
        return len(self._entries)

    def clear(self) -> None:
        """Remove all entries, at once and not one by one."""
        self._entries.clear()
        self._ends.clear()

    def _remove_expired(self, now: float) -> None:
        """Remove a chunk of the expired entries, oldest first."""
        for _ in range(CHUNK):
            key = next(iter(self._ends), None)
            if key is None or now < self._ends[key]:
                return
            del self[key]

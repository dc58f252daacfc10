"""The rules of the first tier: what this process holds, for how long, and what may stand in for what."""

from collections.abc import Callable, Iterable, MutableMapping
from math import inf
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.policies import CachePolicy
from tequipy_caching.domain.ports import MISSING, Missing

V = TypeVar("V")


class Tag:
    """A tag that entries hold; deleting it reaches all of them at once, however many they are."""

    __slots__ = ("__weakref__", "deleted")

    def __init__(self) -> None:
        self.deleted = False


class Entry(Generic[V]):
    """A value, or the exception that stands for it, and its times on the process's own clock."""

    __slots__ = ("error", "fast_until", "fresh_until", "refresh_at", "stale_until", "tags", "value")

    def __init__(self, value: V | Missing, error: Exception | None, tags: tuple[Tag, ...]) -> None:
        self.value = value
        self.error = error
        self.tags = tags
        self.fast_until = -inf
        """Until then a hit needs no further look at this entry."""
        self.refresh_at = inf
        self.fresh_until = -inf
        self.stale_until = -inf


class Memory(Generic[V]):
    """Holds entries in any mapping, which bounds their number; nothing here waits, and nothing is shared."""

    def __init__(self, policy: CachePolicy, entries: MutableMapping[Key, Entry[V]], clock: Callable[[], float]) -> None:
        self.clock = clock
        self._policy = policy
        self._entries = entries
        self._longest = min(policy.ttl, policy.l1_ttl or policy.ttl)
        self._tags: WeakValueDictionary[str, Tag] = WeakValueDictionary()
        self.enabled = "l1" in policy.tiers
        """Whether it holds anything at all."""

    def fast_value(self, key: Key, now: float) -> V | Missing:
        """Return a value that is fresh now, and about which nothing else is to be known: the usual hit."""
        try:
            entry = self._entries[key]
        except KeyError:
            return MISSING
        return entry.value if now < entry.fast_until else MISSING

    def find(self, key: Key) -> Entry[V] | None:
        """Return an entry that is fresh, be it a value or an exception."""
        if not self.enabled:
            return None
        try:
            entry = self._entries[key]
        except KeyError:
            return None
        if self.clock() >= entry.fresh_until or any(tag.deleted for tag in entry.tags):
            return None
        return entry

    def value(self, key: Key) -> V | Missing:
        """Return a fresh value."""
        entry = self.find(key)
        return MISSING if entry is None else entry.value

    def stale_value(self, key: Key) -> V | Missing:
        """Return a value that may be past its life, but not past the policy's `fail_safe`."""
        entry = self._entries.get(key)
        if entry is None or self.clock() >= entry.stale_until or any(tag.deleted for tag in entry.tags):
            return MISSING
        return entry.value

    def keep(self, key: Key, value: V, left: float, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep a value that has `left` of its `life` in seconds, at most as long as the policy says."""
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
        """Note that an entry is being loaded anew: until its life ends it is a plain hit again."""
        entry.refresh_at = inf
        if not entry.tags:
            entry.fast_until = entry.fresh_until

    def keep_error(self, key: Key, error: Exception, ttl: float, *, tags: Iterable[str] = ()) -> None:
        """Keep an exception in the place of a value."""
        entry: Entry[V] = Entry(MISSING, error, tuple([self._tag(tag) for tag in tags]))
        entry.fresh_until = self.clock() + ttl
        self._put(key, entry)

    def keep_stale(self, key: Key, value: V, left: float, *, tags: Iterable[str] = ()) -> None:
        """Keep a value past its life, which may stand in for `left` seconds more, and serve it for a moment."""
        entry = Entry(value, None, tuple([self._tag(tag) for tag in tags]))
        entry.stale_until = self.clock() + left
        self._put(key, entry)
        self.serve_stale(key)

    def serve_stale(self, key: Key) -> None:
        """Let a value past its life pass for fresh for a moment, so that what fails is not tried at every call."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.fresh_until = min(entry.stale_until, self.clock() + self._policy.fail_safe_throttle)
            if not entry.tags:
                entry.fast_until = entry.fresh_until

    def drop(self, key: Key) -> None:
        """Forget an entry."""
        self._entries.pop(key, None)

    def expire(self, key: Key) -> None:
        """End a value's life; it may still stand in."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.fresh_until = entry.fast_until = -inf

    def drop_tag(self, tag: str) -> None:
        """Forget all entries of a tag."""
        known = self._tags.pop(tag, None)
        if known is not None:
            known.deleted = True

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _put(self, key: Key, entry: Entry[V]) -> None:
        if self.enabled:
            self._entries[key] = entry

    def _tag(self, tag: str) -> Tag:
        known = self._tags.get(tag)
        if known is None:
            known = self._tags[tag] = Tag()
        return known

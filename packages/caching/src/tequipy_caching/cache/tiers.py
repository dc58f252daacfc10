"""The ports of a cache: the tier that all processes share, and the channel that carries their invalidations."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.ports import MISSING, Missing

V = TypeVar("V")

Operation = Literal["delete", "expire", "tags", "clear", "released"]
"""The kind of a change: keys were deleted or expired, tags deleted, the cache cleared, or load leases released."""


class Change(NamedTuple):
    """A change of one cache, as the other processes must apply it."""

    operation: Operation
    keys: Sequence[Key] = ()
    """The keys that were deleted or expired, or whose load leases were released."""
    tags: Sequence[str] = ()
    """The ids of the tags that were deleted."""


class Channel(Protocol):
    """The channel on which a process receives the invalidations of the others."""

    @property
    def live_until(self) -> float:
        """The time until which L1 may be used, because every invalidation is known to have been received.

        By the clock of L1 (`Memory.clock`), so that a hit compares two times and calls nothing else.
        """

    @property
    def live(self) -> bool:
        """Whether `live_until` has not passed."""


class Encoded(Protocol):
    """A value in the format of the shared tier."""

    @property
    def fits(self) -> bool:
        """Whether its size is at most the policy's `max_value_bytes`."""


class Lookup(NamedTuple, Generic[V]):
    """The result of a lookup of one key; times in seconds."""

    value: V | Missing = MISSING
    """The value, if it is fresh."""
    left: float = 0
    """The remaining ttl; 0 if the value must not be kept in memory."""
    ttl: float = 0
    """The ttl with which it was stored."""
    tags: tuple[str, ...] = ()
    """The ids of its tags."""
    stale_value: Callable[[], V | Missing] = lambda: MISSING
    """Returns the stale value, or `MISSING`. A function, because it is seldom needed and decoding it takes time."""
    stale_left: float = 0
    """How long the stale value may be served."""
    seen: object | None = None
    """The state of the key, which a store compares to detect invalidations; None if it is unknown."""
    tombstoned: bool = False
    """Whether the key was deleted, so that no stale value may be served."""


class SharedTier(ABC, Generic[V]):
    """The L2 of one cache. Every coroutine method raises `CacheUnavailable` when Redis cannot be reached or refuses."""

    stores: bool
    """Whether it stores values; otherwise it only publishes changes to the other processes."""

    @property
    @abstractmethod
    def unreachable(self) -> bool:
        """Whether it is known to be unreachable, so that no caller should wait for it."""

    @abstractmethod
    def encode(self, key: Key, value: V, ttl: float, tags: Sequence[str]) -> Encoded:
        """Encode a value; raises `TypeError` for a value that is not of the cache's type."""

    @abstractmethod
    async def read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> Mapping[Key, Lookup[V]]:
        """Look up keys in one round trip.

        `storing` says that a load may follow, which stores the values of missing keys with these tags. The lookups then
        have the state that the store requires (`seen`).
        """

    @abstractmethod
    async def changed(self, seen: Mapping[Key, object]) -> AbstractSet[Key]:
        """Return the keys that were invalidated, or whose cache or tags were, since a lookup returned these states."""

    @abstractmethod
    async def store(self, loaded: Mapping[Key, tuple[Encoded, object]]) -> AbstractSet[Key]:
        """Store loaded values, except for keys that changed since their lookup (`seen`), and return these keys.

        A key whose state has vanished (evicted, expired) is neither stored nor returned: it is unknown whether it has
        changed.
        """

    @abstractmethod
    async def write(self, key: Key, encoded: Encoded) -> None:
        """Store a value and publish the change to all processes."""

    @abstractmethod
    async def remove(self, keys: Sequence[Key]) -> None:
        """Replace values by tombstones and publish the change to all processes."""

    @abstractmethod
    async def expire(self, keys: Sequence[Key]) -> None:
        """End the ttl of values, keep them as stale values, and publish the change to all processes."""

    @abstractmethod
    async def remove_tags(self, tags: Sequence[str]) -> None:
        """Invalidate all values stored with one of the tags, and publish the change to all processes."""

    @abstractmethod
    async def clear(self) -> None:
        """Invalidate all values of this cache, and publish the change to all processes."""

    @abstractmethod
    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease_ttl: float) -> Mapping[Key, float]:
        """Acquire the leases that are free, or whose holders load values that were invalidated meanwhile.

        Returns for each key the seconds until another process's lease ends; 0 means that it was acquired.
        """

    @abstractmethod
    async def unlock(self, keys: Sequence[Key], token: str) -> None:
        """Release leases, and publish it to all processes."""

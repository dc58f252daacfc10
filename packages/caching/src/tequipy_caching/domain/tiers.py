"""The ports behind a cache: the tier that all processes share, and the channel on which they hear of each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from tequipy_caching.domain.keys import Key
from tequipy_caching.domain.ports import MISSING, Missing

V = TypeVar("V")

Operation = Literal["delete", "expire", "tags", "clear", "released"]
"""What a message says of the keys or tags in it: removed, past their life, removed by tag, all removed, lease free."""


class Listener(ABC):
    """Who wants to know what other processes change; called from the event loop, and must not wait."""

    @abstractmethod
    def on_message(self, body: Any) -> None:  # noqa: ANN401 -- JSON, which the listener checks
        """Take what another process has told under the topic; raises `ValueError` for what it cannot understand."""

    def on_refused_change(self, body: Any) -> None:  # noqa: ANN401 -- as above
        """Take what another process has told although Redis has refused it; raises `ValueError` as `hear`."""
        self.on_message(body)

    @abstractmethod
    def on_gap(self) -> None:
        """Learn that anything may have been missed: what is held from before this moment cannot be trusted."""


class Channel(Protocol):
    """Where invalidations are heard."""

    @property
    def live_until(self) -> float:
        """Until when, by the clock of the caches' memories, each one can be believed to be heard."""

    @property
    def live(self) -> bool:
        """Whether that is still to come."""


class Encoded(Protocol):
    """A value as the shared tier is to keep it."""

    @property
    def fits(self) -> bool:
        """Whether it is within the policy's `max_value_bytes`."""


class Lookup(NamedTuple, Generic[V]):
    """What a look for one key gave; times in seconds."""

    value: V | Missing = MISSING
    """A fresh value."""
    left: float = 0
    """How long it stays fresh; 0: it is not to be kept."""
    ttl: float = 0
    """How long it was to live when it was stored."""
    tags: tuple[str, ...] = ()
    """The ids of its tags."""
    stale_value: Callable[[], V | Missing] = lambda: MISSING
    """Gives a value past its life."""
    stale_left: float = 0
    """How long that may stand in."""
    seen: object | None = None
    """The state of the key, for a load to be fenced by; None: unknown."""
    tombstoned: bool = False
    """Whether the key was deleted: no older value may stand in."""


class SharedTier(ABC, Generic[V]):
    """The second tier of one cache. Whatever asks it raises `CacheUnavailable` when it cannot be reached."""

    stores: bool
    """Whether it holds values; without, it only tells the other processes."""

    @property
    @abstractmethod
    def away(self) -> bool:
        """Whether it is known not to be there, so that nobody should wait for it."""

    @abstractmethod
    def encode(self, key: Key, value: V, ttl: float, tags: Sequence[str]) -> Encoded:
        """Encode a value; raises `TypeError` for one that is not of the cache's type."""

    @abstractmethod
    async def read(self, keys: Sequence[Key], tags: Sequence[str], *, storing: bool) -> Mapping[Key, Lookup[V]]:
        """Look for keys, in one round trip; with `storing` a load that begins now will store with these tags."""

    @abstractmethod
    async def changed(self, seen: Mapping[Key, object]) -> AbstractSet[Key]:
        """Return those keys (or whose cache or tags) that have changed since each was `seen`."""

    @abstractmethod
    async def store(self, loaded: Mapping[Key, tuple[Encoded, object]]) -> AbstractSet[Key]:
        """Keep what was loaded, each unless its key (or cache, or tag) has changed since it was `seen`; return these.

        What has lost the state that was seen is neither kept nor returned: nobody knows whether it has changed.
        """

    @abstractmethod
    async def write(self, key: Key, encoded: Encoded) -> None:
        """Keep a value, and tell all processes."""

    @abstractmethod
    async def remove(self, keys: Sequence[Key]) -> None:
        """Put tombstones in the place of keys, and tell all processes."""

    @abstractmethod
    async def expire(self, keys: Sequence[Key]) -> None:
        """End the lives of keys, leaving what may stand in, and tell all processes."""

    @abstractmethod
    async def remove_tags(self, tags: Sequence[str]) -> None:
        """Make everything stored with these tags void, and tell all processes."""

    @abstractmethod
    async def clear(self) -> None:
        """Make everything of this cache void, and tell all processes."""

    @abstractmethod
    async def lock(self, keys: Sequence[Key], tags: Sequence[str], token: str, lease: float) -> Mapping[Key, float]:
        """Take the leases that are free, or whose holders load what has been invalidated since.

        Returns how long each is somebody else's, 0: it is ours now.
        """

    @abstractmethod
    async def unlock(self, keys: Sequence[Key], token: str) -> None:
        """Give back leases, and tell all processes."""

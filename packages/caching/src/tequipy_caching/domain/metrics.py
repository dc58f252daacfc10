"""What the caches count, and the port through which it is read."""

from abc import ABC, abstractmethod
from collections.abc import Callable


class Tally:
    """A number that grows. Added to without a lock, for a cache belongs to one event loop; read from anywhere."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: float = 0


Observe = Callable[[float], None]
"""Takes a duration in seconds."""


class CacheMetrics(ABC):
    """Hands out what is counted on; asked once for each label, so that a hit pays for one addition. Never a key."""

    @abstractmethod
    def requests(self, cache: str, tier: str, result: str) -> Tally:
        """Return the count of lookups: tier l1 or l2, result hit, miss, stale or unreadable."""

    @abstractmethod
    def loads(self, cache: str, outcome: str) -> Tally:
        """Return the count of factory calls: outcome ok, error or cancelled."""

    @abstractmethod
    def load_seconds(self, cache: str) -> Observe:
        """Return what takes the duration of a factory call."""

    @abstractmethod
    def coalesced_waiters(self, cache: str) -> Tally:
        """Return the count of callers who waited for a load that another had begun."""

    @abstractmethod
    def fenced_fills(self, cache: str) -> Tally:
        """Return the count of values that were not kept, for an invalidation came in between."""

    @abstractmethod
    def l2_seconds(self, operation: str) -> Observe:
        """Return what takes the duration of an answered request to Redis: read, store, write or remove."""

    @abstractmethod
    def l2_errors(self, kind: str) -> Tally:
        """Return the count of failed requests to Redis: kind busy, connection, timeout or answer."""

    @abstractmethod
    def backplane_messages(self, direction: str) -> Tally:
        """Return the count of messages to other processes: direction in or out."""

    @abstractmethod
    def backplane_gaps(self) -> Tally:
        """Return the count of gaps in what was heard."""

    @abstractmethod
    def backplane_deaf_seconds(self) -> Tally:
        """Return the seconds in which this process could not trust what it heard."""

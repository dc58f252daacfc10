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

Read = Callable[[], float]
"""Gives a number that rises and falls; called from any thread."""


class CacheMetrics(ABC):
    """Hands out what is counted on, by the metric's name and the values of its labels, of which none is ever a key.

    Asked once for each, so that a hit pays for one addition.
    """

    @abstractmethod
    def tally(self, name: str, *labels: str) -> Tally:
        """Return the count of a metric."""

    @abstractmethod
    def seconds(self, name: str, *labels: str) -> Observe:
        """Return what takes the durations of a metric."""

    @abstractmethod
    def watch(self, name: str, read: Read, *labels: str) -> None:
        """Have a metric read when it is asked for."""

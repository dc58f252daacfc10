"""The counters of the caches, and the port through which a metrics system reads them."""

from abc import ABC, abstractmethod
from collections.abc import Callable


class Tally:
    """A counter. Incremented on one event loop only, so without a lock; read from any thread."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: float = 0


Observe = Callable[[float], None]
"""Records a duration in seconds."""

Read = Callable[[], float]
"""Returns the current value of a gauge; called from any thread."""


class CacheMetrics(ABC):
    """Creates counters, gauges and histograms by the metric's name and the values of its labels; no label is a key.

    Caches create them once in advance, so that counting a hit costs one addition.
    """

    @abstractmethod
    def tally(self, name: str, *labels: str) -> Tally:
        """Return the counter of a metric."""

    @abstractmethod
    def seconds(self, name: str, *labels: str) -> Observe:
        """Return the function that records durations of a metric."""

    @abstractmethod
    def watch(self, name: str, read: Read, *labels: str) -> None:
        """Register the function that is called whenever a gauge is read."""

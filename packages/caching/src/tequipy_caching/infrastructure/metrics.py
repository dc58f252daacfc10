"""The metrics port on Prometheus."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tequipy_caching.domain.metrics import CacheMetrics, Observe, Tally

_COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "cache_requests": ("Lookups in a tier.", ("cache", "tier", "result")),
    "cache_loads": ("Calls of factories.", ("cache", "outcome")),
    "cache_coalesced_waiters": ("Callers who waited for a load that another had begun.", ("cache",)),
    "cache_fenced_fills": ("Values not kept, for an invalidation came in between.", ("cache",)),
    "cache_l2_errors": ("Failed requests to Redis.", ("kind",)),
    "cache_backplane_messages": ("Messages to other processes, sent (out) and heard (in).", ("direction",)),
    "cache_backplane_gaps": ("Gaps in the messages heard.", ()),
    "cache_backplane_deaf_seconds": ("Time in which messages may have been missed.", ()),
}
_L2_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class PrometheusCacheMetrics(CacheMetrics, Collector):
    """Reads the tallies when it is scraped; without a registry nobody reads them."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._tallies: dict[str, dict[tuple[str, ...], Tally]] = {name: {} for name in _COUNTERS}
        self._load_seconds = Histogram("cache_load_seconds", "Duration of factories.", ["cache"], registry=registry)
        self._l2_seconds = Histogram(
            "cache_l2_seconds", "Duration of requests to Redis.", ["op"], buckets=_L2_BUCKETS, registry=registry
        )
        if registry is not None:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield the tallies as counters."""
        for name, (help_, labels) in _COUNTERS.items():
            family = CounterMetricFamily(name, help_, labels=labels)
            for values, tally in list(self._tallies[name].items()):  # a copy: scraped in a thread of its own
                family.add_metric(values, tally.count)
            yield family

    def requests(self, cache: str, tier: str, result: str) -> Tally:
        """Return the count of lookups."""
        return self._tally("cache_requests", cache, tier, result)

    def loads(self, cache: str, outcome: str) -> Tally:
        """Return the count of factory calls."""
        return self._tally("cache_loads", cache, outcome)

    def load_seconds(self, cache: str) -> Observe:
        """Return what takes the duration of a factory call."""
        return self._load_seconds.labels(cache).observe

    def coalesced_waiters(self, cache: str) -> Tally:
        """Return the count of callers who waited for another's load."""
        return self._tally("cache_coalesced_waiters", cache)

    def fenced_fills(self, cache: str) -> Tally:
        """Return the count of values that were not kept."""
        return self._tally("cache_fenced_fills", cache)

    def l2_seconds(self, operation: str) -> Observe:
        """Return what takes the duration of a request to Redis."""
        return self._l2_seconds.labels(operation).observe

    def l2_errors(self, kind: str) -> Tally:
        """Return the count of failed requests to Redis."""
        return self._tally("cache_l2_errors", kind)

    def backplane_messages(self, direction: str) -> Tally:
        """Return the count of messages."""
        return self._tally("cache_backplane_messages", direction)

    def backplane_gaps(self) -> Tally:
        """Return the count of gaps."""
        return self._tally("cache_backplane_gaps")

    def backplane_deaf_seconds(self) -> Tally:
        """Return the seconds of deafness."""
        return self._tally("cache_backplane_deaf_seconds")

    def _tally(self, name: str, *labels: str) -> Tally:
        return self._tallies[name].setdefault(labels, Tally())

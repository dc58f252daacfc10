"""The metrics port on Prometheus."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tequipy_caching.domain.metrics import CacheMetrics, Observe, Read, Tally

_Families = Mapping[str, tuple[str, tuple[str, ...]]]
"""What each metric says, and its labels."""

_COUNTERS: Final[_Families] = {
    "cache_requests": (
        "Lookups in a tier (l1, l2): hit, miss, stale (past its life, or untrusted), unreadable.",
        ("cache", "tier", "result"),
    ),
    "cache_loads": ("Calls of factories: ok, error, timeout, cancelled.", ("cache", "outcome")),
    "cache_coalesced_waiters": ("Callers who waited for a load that another had begun.", ("cache",)),
    "cache_fenced_fills": ("Values not kept, for an invalidation came in between.", ("cache",)),
    "cache_l1_evictions": ("Values that left a full memory.", ("cache",)),
    "cache_l2_errors": ("Failed requests to Redis: busy, connection, timeout, answer.", ("kind",)),
    "cache_backplane_messages": ("Messages to other processes, sent (out) and heard (in).", ("direction",)),
    "cache_backplane_gaps": ("Gaps in the messages heard.", ()),
    "cache_backplane_deaf_seconds": ("Time in which messages may have been missed.", ()),
}
_GAUGES: Final[_Families] = {
    "cache_l1_size": ("Values in memory.", ("cache",)),
    "cache_breaker_state": ("Whether Redis is taken for away (1) or asked (0).", ()),
    "cache_writes_refused": ("Whether Redis answers and refuses writes, scripts or the channel (1): alert on it.", ()),
    "cache_recovery_queue": ("Changes that wait for Redis.", ()),
}
_DURATIONS: Final[Mapping[str, tuple[str, str, Sequence[float]]]] = {
    "cache_load_seconds": ("Duration of factories.", "cache", Histogram.DEFAULT_BUCKETS),
    "cache_l2_seconds": (
        "Duration of requests to Redis, by script.",
        "op",
        (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    ),
}
"""What each says, its label, and its buckets."""


class PrometheusCacheMetrics(CacheMetrics, Collector):
    """Reads the tallies when it is scraped; without a registry nobody reads them.

    The rate limiter, which has a connection to Redis of its own, counts the same under a `prefix` of its own.
    """

    def __init__(self, registry: CollectorRegistry | None, *, prefix: str = "cache") -> None:
        self._prefix = prefix
        self._registry = registry
        self._tallies: dict[str, dict[tuple[str, ...], Tally]] = {name: {} for name in _COUNTERS}
        self._reads: dict[str, dict[tuple[str, ...], Read]] = {name: {} for name in _GAUGES}
        self._histograms: dict[str, Histogram] = {}
        if registry is not None:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield the tallies as counters, and what rises and falls as gauges, those that somebody has asked for."""
        for name, tallies in self._tallies.items():
            help_, labels = _COUNTERS[name]
            counter = CounterMetricFamily(self._full(name), help_, labels=labels)
            for values, tally in list(tallies.items()):  # a copy: scraped in a thread of its own
                counter.add_metric(values, tally.count)
            if counter.samples:
                yield counter
        for name, reads in self._reads.items():
            help_, labels = _GAUGES[name]
            gauge = GaugeMetricFamily(self._full(name), help_, labels=labels)
            for values, read in list(reads.items()):
                gauge.add_metric(values, read())
            if gauge.samples:
                yield gauge

    def tally(self, name: str, *labels: str) -> Tally:
        """Return the count of a metric."""
        return self._tallies[name].setdefault(labels, Tally())

    def seconds(self, name: str, *labels: str) -> Observe:
        """Return what takes the durations of a metric."""
        histogram = self._histograms.get(name)
        if histogram is None:
            help_, label, buckets = _DURATIONS[name]
            histogram = self._histograms[name] = Histogram(
                self._full(name), help_, [label], buckets=buckets, registry=self._registry
            )
        return histogram.labels(*labels).observe

    def watch(self, name: str, read: Read, *labels: str) -> None:
        """Have a metric read when it is scraped."""
        self._reads[name][labels] = read

    def _full(self, name: str) -> str:
        return self._prefix + name.removeprefix("cache")

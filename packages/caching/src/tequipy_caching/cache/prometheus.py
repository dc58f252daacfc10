"""An implementation of the metrics port for Prometheus."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tequipy_caching.cache.metrics import CacheMetrics, Observe, Read, Tally

_Families = Mapping[str, tuple[str, tuple[str, ...]]]
"""Help text and label names of each metric."""

_COUNTERS: Final[_Families] = {
    "cache_requests": (
        "Lookups in a tier (l1, l2): hit, miss, stale (expired, or served while disconnected), unreadable.",
        ("cache", "tier", "result"),
    ),
    "cache_loads": ("Calls of factories: ok, error, timeout, cancelled.", ("cache", "outcome")),
    "cache_coalesced_waiters": ("Callers that joined a load in flight.", ("cache",)),
    "cache_fenced_fills": ("Loaded values not stored because of an invalidation during the load.", ("cache",)),
    "cache_l1_evictions": ("Values evicted from a full L1.", ("cache",)),
    "cache_l2_errors": ("Failed requests to Redis: busy, connection, timeout, answer.", ("kind",)),
    "cache_backplane_messages": ("Messages on the channel, published (out) and received (in).", ("direction",)),
    "cache_backplane_gaps": ("Gaps in the sequence numbers of received messages.", ()),
    "cache_backplane_deaf_seconds": ("Seconds without the channel, in which messages may have been missed.", ()),
}
_GAUGES: Final[_Families] = {
    "cache_l1_size": ("Values in L1.", ("cache",)),
    "cache_breaker_state": ("Whether the circuit breaker is open (1) or closed (0).", ()),
    "cache_writes_refused": ("Whether Redis answers, but refuses writes, scripts or the channel (1); alert on it.", ()),
    "cache_recovery_queue": ("Pending invalidations that have not reached Redis.", ()),
}
_DURATIONS: Final[Mapping[str, tuple[str, str, Sequence[float]]]] = {
    "cache_load_seconds": ("Duration of factory calls.", "cache", Histogram.DEFAULT_BUCKETS),
    "cache_l2_seconds": (
        "Duration of requests to Redis, by script.",
        "op",
        (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    ),
}
"""Help text, label name and buckets of each histogram."""


class PrometheusCacheMetrics(CacheMetrics, Collector):
    """Exports the tallies when Prometheus scrapes them; without a registry nothing is exported.

    The rate limiter has its own connection to Redis; it exports the same metrics with the `prefix` "ratelimit".
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
        """Yield the counters and gauges that are in use."""
        for name, tallies in self._tallies.items():
            help_, labels = _COUNTERS[name]
            counter = CounterMetricFamily(self._full(name), help_, labels=labels)
            for values, tally in list(tallies.items()):  # a copy, because a scrape runs in another thread
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
        """Return the tally of a counter with these label values."""
        return self._tallies[name].setdefault(labels, Tally())

    def seconds(self, name: str, *labels: str) -> Observe:
        """Return the function that observes durations, in seconds, of a histogram with this label value."""
        histogram = self._histograms.get(name)
        if histogram is None:
            help_, label, buckets = _DURATIONS[name]
            histogram = self._histograms[name] = Histogram(
                self._full(name), help_, [label], buckets=buckets, registry=self._registry
            )
        return histogram.labels(*labels).observe

    def watch(self, name: str, read: Read, *labels: str) -> None:
        """Register the function that returns the value of a gauge at each scrape."""
        self._reads[name][labels] = read

    def _full(self, name: str) -> str:
        """Return the name with the prefix of this object, such as `ratelimit_breaker_state`."""
        return self._prefix + name.removeprefix("cache")

"""HTTP metrics, counted by route template."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from time import time
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tequipy_observability._context import RequestContext
from tequipy_observability.api.routes import UNMATCHED

DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZE_BUCKETS: Final = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
OTHER_METHOD: Final = "_OTHER"
# RFC 9110, section 9.1, and PATCH (RFC 5789): any other method shares one label.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
# OpenMetrics, section 4.6.1: the limit for all names and values of an exemplar's labels together.
_EXEMPLAR_LENGTH: Final = 128
_SAMPLED: Final = 1  # the flag of a traceparent whose trace is recorded (W3C Trace Context, section 3.2.2.5)


class HttpMetrics(Collector):
    """Counts requests by route template and not by path, so that requests for unknown paths add no series.

    The counts are kept here because this code runs for each request: prometheus-client's metrics take a lock for each
    number and validate the labels of each exemplar.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_progress = 0
        """The number of requests being served; the middleware changes it."""
        self._series: dict[tuple[str, str], _Series] = {}
        # Created at the start, so that requests for unknown paths do not add them.
        self._add("GET", UNMATCHED)
        self._add(OTHER_METHOD, UNMATCHED)
        registry.register(self)

    def observe(self, *, method: str, route: str, status: int, seconds: float, size: int, by: RequestContext) -> None:
        """Count one finished request; an exemplar refers to `by`."""
        if method not in METHODS:
            method, route = OTHER_METHOD, UNMATCHED  # no route serves such a method
        series = self._series.get((method, route)) or self._add(method, route)
        statuses = series.statuses
        statuses[status] = statuses.get(status, 0) + 1
        series.duration.observe(seconds, by)
        series.size.observe(size, None)

    def collect(self) -> Iterable[Metric]:
        """Yield the current counts."""
        yield GaugeMetricFamily("http_requests_in_progress", "Requests being served.", self.in_progress)
        requests = CounterMetricFamily("http_requests", "Requests served.", labels=("method", "route", "status"))
        # Iterates over copies, because the metrics' own port scrapes in another thread.
        found = self._series.copy().items()
        for (method, route), series in found:
            for status, count in series.statuses.copy().items():
                requests.add_metric((method, route, str(status)), count)
        labels = ("method", "route")
        durations = HistogramMetricFamily(
            "http_request_duration_seconds", "Seconds from the request to the end of its answer.", labels=labels
        )
        sizes = HistogramMetricFamily("http_response_size_bytes", "Bytes in the bodies of answers.", labels=labels)
        for values, series in found:
            series.duration.add_to(durations, values)
            series.size.add_to(sizes, values)
        yield from (requests, durations, sizes)

    def describe(self) -> Iterable[Metric]:
        """Yield the families, by whose names the registry detects duplicates."""
        return self.collect()

    def _add(self, method: str, route: str) -> "_Series":
        series = self._series[method, route] = _Series()
        return series


class _Series:
    """The counts of one method and route."""

    __slots__ = ("duration", "size", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.duration = _Distribution(DURATION_BUCKETS)
        self.size = _Distribution(SIZE_BUCKETS)


class _Distribution:
    """The counts of a histogram, and the last request in each bucket."""

    __slots__ = ("_bounds", "_counts", "_latest", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._latest: list[tuple[RequestContext, float, float] | None] = [None] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, by: RequestContext | None) -> None:
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._sum += value
        if by is not None:
            self._latest[bucket] = (by, value, time())

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        total = 0
        buckets: list[tuple[str, float, Exemplar | None]] = []
        for bound, count, latest in zip((*self._bounds, float("inf")), self._counts, self._latest, strict=True):
            total += count
            name = floatToGoString(bound)  # type: ignore[no-untyped-call]  # -- it formats a float
            buckets.append((name, total, _exemplar(*latest) if latest else None))
        family.add_metric(labels, buckets, self._sum)  # type: ignore[arg-type]  # -- the stub lacks that an exemplar may be None


def _exemplar(by: RequestContext, value: float, at: float) -> Exemplar | None:
    """Return an exemplar with the request's trace, if it is sampled, and its correlation id, if it fits."""
    labels = {}
    if by.traceparent is not None:
        _, trace_id, span_id, flags = by.traceparent.split("-")[:4]
        if int(flags, 16) & _SAMPLED:
            labels = {"trace_id": trace_id, "span_id": span_id}
    if by.correlation_id is not None:
        longer = labels | {"correlation_id": by.correlation_id}
        if len("".join((*longer, *longer.values()))) <= _EXEMPLAR_LENGTH:
            labels = longer
    return Exemplar(labels, value, at) if labels else None

"""The metrics of HTTP."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZE_BUCKETS: Final = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)


class HttpMetrics:
    """Counts requests by route template, never by path: a random path adds no series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_progress = Gauge("http_requests_in_progress", "Requests being served.", registry=registry)
        self._requests = Counter(
            "http_requests_total", "Requests served.", ["method", "route", "status"], registry=registry
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Seconds from the request to the end of its answer.",
            ["method", "route"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._size = Histogram(
            "http_response_size_bytes",
            "Bytes in the bodies of answers.",
            ["method", "route"],
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        # As many as there are series; to look one up by its labels costs more than to count.
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram, Histogram]] = {}

    def observe(self, *, method: str, route: str, status: int, seconds: float, size: int) -> None:
        """Count one answered request."""
        series = self._series.get((method, route, status))
        if series is None:
            series = (
                self._requests.labels(method, route, status),
                self._duration.labels(method, route),
                self._size.labels(method, route),
            )
            self._series[method, route, status] = series
        requests, duration, sizes = series
        requests.inc()
        duration.observe(seconds)
        sizes.observe(size)

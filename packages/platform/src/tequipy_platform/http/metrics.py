"""Metrics of outgoing calls."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OTHER: Final = "_OTHER"
_MAX_HOSTS: Final = 50
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_STATUSES: Final = {int(status): str(int(status)) for status in HTTPStatus}
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class HttpClientMetrics:
    """The metrics `http_client_*` of all profiles.

    `host` is one of the first 50 hosts, and `_OTHER` for all further ones and for those of the Webhooks profile, which
    users choose. `outcome` is the status (`200`), or the kind of error in snake_case (`connect_timeout`).
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._hosts: set[str] = set()
        self.requests = Counter(
            "http_client_requests",
            "Calls, by status or kind of error; all attempts of a call count once.",
            ["profile", "host", "method", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "http_client_request_duration_seconds",
            "Seconds of a call with all its attempts, to the end of the body.",
            ["profile", "host"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "http_client_retries", "Attempts beyond the first one.", ["profile", "host"], registry=registry
        )
        self.in_progress = Gauge(
            "http_client_requests_in_progress",
            "Calls that have not ended.",
            ["profile"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.circuit_open = Gauge(
            "http_client_circuit_open",
            "Open circuit breakers of the host: one for each port.",
            ["profile", "host"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def of_host(self, profile: str, host: str, *, named: bool) -> "HostMetrics":
        """Return the metrics of calls to a host; `named` is whether it may have a label of its own."""
        if not named or (host not in self._hosts and len(self._hosts) >= _MAX_HOSTS):
            host = OTHER
        else:
            self._hosts.add(host)
        return HostMetrics(self, profile, host)


class HostMetrics:
    """The metrics of the calls of one profile to one host, which look each child of a metric up once."""

    def __init__(self, metrics: HttpClientMetrics, profile: str, host: str) -> None:
        self.in_progress = metrics.in_progress.labels(profile)
        self.duration = metrics.duration.labels(profile, host)
        self.retries = metrics.retries.labels(profile, host)
        self.circuit_open = metrics.circuit_open.labels(profile, host)
        self._requests: Callable[[str, str], Counter] = lambda method, outcome: metrics.requests.labels(
            profile, host, method, outcome
        )
        self._ended: dict[tuple[str, str], Counter] = {}

    def ended(self, method: str, outcome: str) -> Counter:
        """Return the counter of ended calls."""
        key = (method_label(method), outcome)
        counter = self._ended.get(key)
        if counter is None:
            counter = self._ended[key] = self._requests(*key)
        return counter


def status_label(status: int) -> str:
    """Return a status, or `_OTHER` for one that is not registered, because upstreams choose it."""
    return _STATUSES.get(status, OTHER)


def method_label(method: str) -> str:
    """Return the method, or `_OTHER` for one that RFC 9110 and RFC 5789 do not define."""
    return method if method in _METHODS else OTHER

"""Metrics of outgoing calls."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OTHER: Final = "_OTHER"
_MAX_HOSTS: Final = 50
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
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
            "Whether the circuit breaker of the host is open (1) or closed (0).",
            ["profile", "host"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def host_label(self, host: str) -> str:
        """Return the label of a host, one of at most 51."""
        if host in self._hosts:
            return host
        if len(self._hosts) < _MAX_HOSTS:
            self._hosts.add(host)
            return host
        return OTHER


def method_label(method: str) -> str:
    """Return the method, or `_OTHER` for one that RFC 9110 and RFC 5789 do not define."""
    return method if method in _METHODS else OTHER

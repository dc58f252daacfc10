"""Prometheus metrics of auth: operations, and waiting times and refusals of hashes."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.operations import Operations


class PrometheusOperations(Operations):
    """Counts operations in `auth_operations_total{operation,status}`; without a registry nothing is exported."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._counter = Counter(
            "auth_operations", "Operations of auth, by how they ended.", ["operation", "status"], registry=registry
        )

    def count(self, operation: str, status: str) -> None:
        """Count one operation."""
        self._counter.labels(operation, status).inc()


class HashingMetrics:
    """Measures how long hashes waited for a thread and how many were refused.

    The labels are the pool and `client`: `marked` or `unmarked`. Without a registry the metrics are not exported.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._refused = Counter(
            "auth_hashing_refused",
            "Hashes answered by 503: the queue was full, or is closed.",
            ["pool", "client"],
            registry=registry,
        )
        self._wait = Histogram(
            "auth_hashing_wait_seconds",
            "How long hashes waited for a thread.",
            ["pool", "client"],
            registry=registry,
            buckets=(0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )

    def refused(self, pool: str, client: HashingClient) -> None:
        """Count a hash that was refused or evicted."""
        self._refused.labels(pool, _label(client)).inc()

    def started(self, pool: str, client: HashingClient, *, waited: float) -> None:
        """Record how many seconds a hash waited before it began."""
        self._wait.labels(pool, _label(client)).observe(waited)


def _label(client: HashingClient) -> str:
    return "marked" if client.marked else "unmarked"

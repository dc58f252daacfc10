"""The counter of operations on Prometheus."""

from prometheus_client import CollectorRegistry, Counter

from tequipy_auth.domain.operations import Operations


class PrometheusOperations(Operations):
    """`auth_operations_total{operation,status}`; without a registry nobody reads it."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._counter = Counter(
            "auth_operations", "Operations of auth, by how they ended.", ["operation", "status"], registry=registry
        )

    def count(self, operation: str, status: str) -> None:
        """Count one operation."""
        self._counter.labels(operation, status).inc()

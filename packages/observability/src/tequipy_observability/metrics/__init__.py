"""The registry of a process's metrics, also over forked children, and the port that serves it."""

from tequipy_observability.metrics.access import METRICS_REFUSALS, MetricsAccess
from tequipy_observability.metrics.multiprocess import SharedRegistry
from tequipy_observability.metrics.port import MetricsPort
from tequipy_observability.metrics.registry import build_registry, service_up_gauge

__all__ = ["METRICS_REFUSALS", "MetricsAccess", "MetricsPort", "SharedRegistry", "build_registry", "service_up_gauge"]

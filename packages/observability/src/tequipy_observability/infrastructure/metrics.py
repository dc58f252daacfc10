"""The registry of a process: never the global one, so that two apps in one process do not meet."""

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector


def build_registry(*, name: str, version: str, environment: str) -> CollectorRegistry:
    """Return a registry that describes the process itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    info = Gauge("app_info", "What runs here; always 1.", ["service", "version", "environment"], registry=registry)
    info.labels(name, version, environment).set(1)
    return registry

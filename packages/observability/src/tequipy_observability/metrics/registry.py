"""The metrics registry of a process, which is never the global one: two apps in one process stay separate."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector

from tequipy_observability.metrics.multiprocess import SharedRegistry


def build_registry(*, name: str, version: str, environment: str, folder: Path | None = None) -> CollectorRegistry:
    """Return a registry with metrics of the process itself; with a `folder`, forked children share it."""
    own = CollectorRegistry()  # for metrics that must not be summed over processes, such as the start time
    ProcessCollector(registry=own)
    PlatformCollector(registry=own)
    GCCollector(registry=own)
    registry = own if folder is None else SharedRegistry(folder, own)
    info = Gauge(
        "app_info",
        "What runs here; always 1.",
        ["service", "version", "environment"],
        registry=registry,
        multiprocess_mode="max",
    )
    info.labels(name, version, environment).set(1)
    return registry


def service_up_gauge(name: str, registry: CollectorRegistry) -> Gauge:
    """Return the gauge of the process's own state, which is 0 until it is set."""
    gauge = Gauge(
        "service_up",
        "Whether the process can work: 0 while it starts, drains, or does not reach a service that it needs.",
        ["service"],
        registry=registry,
        multiprocess_mode="max",  # children never set it
    )
    return gauge.labels(name)

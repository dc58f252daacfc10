"""The registry of a process: never the global one, so that two apps in one process do not meet."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector

from tequipy_observability.infrastructure.multiprocess import SharedRegistry


def build_registry(*, name: str, version: str, environment: str, folder: Path | None = None) -> CollectorRegistry:
    """Return a registry that describes the process itself; with a `folder` it is shared with the children forked."""
    own = CollectorRegistry()  # what is this process's alone: nobody's start time can be added to another's
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

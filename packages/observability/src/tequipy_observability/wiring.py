"""Settings, and the one function of this house that sets up something process-wide: it says so in its name."""

from pathlib import Path

from tequipy_observability.infrastructure.logging import Process, configure_logging
from tequipy_observability.infrastructure.metrics import build_registry
from tequipy_observability.infrastructure.process import Observability, ObservabilitySettings

__all__ = ["Observability", "ObservabilitySettings", "configure_observability"]


def configure_observability(
    settings: ObservabilitySettings,
    *,
    service: str,
    environment: str,
    version: str,
    metrics_folder: Path | None = None,
) -> Observability:
    """Set up this process's logging and return what else it needs: a registry of its own, its settings.

    With a `metrics_folder`, empty and its own, the children that it forks count in the same registry. It has to be in
    `PROMETHEUS_MULTIPROC_DIR` by then, and something had to be before `prometheus_client` was first imported.
    """
    style = settings.log_format
    if style == "auto":
        style = "console" if environment == "local" else "json"
    configure_logging(Process(service, environment, version), level=settings.log_level, style=style)
    registry = build_registry(name=service, version=version, environment=environment, folder=metrics_folder)
    return Observability(settings, registry)

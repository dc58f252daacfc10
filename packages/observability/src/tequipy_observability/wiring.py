"""Settings, and `configure_observability`, the only function of the workspace that sets process-wide state."""

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
    """Configure logging for this process; return its registry together with what serves the metrics.

    With a `metrics_folder` (empty and used by this process alone), forked children count in the same registry. The
    variable `PROMETHEUS_MULTIPROC_DIR` must name the folder by then, and must be set before `prometheus_client` is
    imported.
    """
    style = settings.log_format
    if style == "auto":
        style = "console" if environment == "local" else "json"
    configure_logging(Process(service, environment, version), level=settings.log_level, style=style)
    registry = build_registry(name=service, version=version, environment=environment, folder=metrics_folder)
    return Observability(settings, registry)

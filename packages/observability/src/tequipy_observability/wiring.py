"""Settings, and the one function of this house that sets up something process-wide: it says so in its name."""

from tequipy_observability.infrastructure.logging import Process, configure_logging
from tequipy_observability.infrastructure.metrics import build_registry
from tequipy_observability.infrastructure.process import Observability, ObservabilitySettings

__all__ = ["Observability", "ObservabilitySettings", "configure_observability"]


def configure_observability(
    settings: ObservabilitySettings, *, service: str, environment: str, version: str
) -> Observability:
    """Set up this process's logging and return what else it needs: a registry of its own, its settings."""
    style = settings.log_format
    if style == "auto":
        style = "console" if environment == "local" else "json"
    configure_logging(Process(service, environment, version), level=settings.log_level, style=style)
    return Observability(settings, build_registry(name=service, version=version, environment=environment))

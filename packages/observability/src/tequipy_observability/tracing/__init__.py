"""Tracing with OpenTelemetry: spans that are exported by OTLP. Needs the extra `otel`."""

try:
    import opentelemetry.exporter.otlp.proto.http
    import opentelemetry.sdk.trace  # noqa: F401 -- imported here, so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tracing needs OpenTelemetry: install tequipy-observability[otel]", name=error.name
    ) from error

from tequipy_observability.tracing.export import build_tracer
from tequipy_observability.tracing.tracer import OtelTracer

__all__ = ["OtelTracer", "build_tracer"]

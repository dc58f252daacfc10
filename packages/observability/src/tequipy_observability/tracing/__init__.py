"""Tracing with OpenTelemetry: spans that are exported by OTLP. Needs the extra `otel`."""

from tequipy_observability import needs_extra

with needs_extra("tequipy-observability[otel]"):
    from tequipy_observability.tracing.export import build_tracer
    from tequipy_observability.tracing.tracer import OtelTracer

__all__ = ["OtelTracer", "build_tracer"]

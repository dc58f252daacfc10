"""The export of spans by OTLP over HTTP."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tequipy_observability.tracing.tracer import OtelTracer

EXPORT_SECONDS: Final = 5.0
"""How long one export may take with its retries; the spans of an export that fails are lost."""
_PATH: Final = "/v1/traces"
_LIBRARY: Final = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")


def build_tracer(
    endpoint: str,
    headers: Mapping[str, str],
    *,
    sample_ratio: float,
    service: str,
    environment: str,
    version: str,
) -> OtelTracer:
    """Return a tracer that exports to a collector; `endpoint` is its base URL, as in `OTEL_EXPORTER_OTLP_ENDPOINT`.

    `OTEL_RESOURCE_ATTRIBUTES` may add attributes of the process, such as `k8s.pod.name`; `OTEL_BSP_*` change the
    sizes of batch and queue.
    """

    def build_processor() -> SpanProcessor:
        session = requests.Session()
        session.trust_env = False  # no proxies, and no passwords of .netrc, which would replace the headers
        exporter = OTLPSpanExporter(endpoint + _PATH, headers=dict(headers), timeout=EXPORT_SECONDS, session=session)
        return BatchSpanProcessor(_ReportingExporter(exporter))

    attributes = {
        "service.name": service,
        "service.version": version,
        "deployment.environment.name": environment,
    }
    return OtelTracer(build_processor, attributes=attributes, sample_ratio=sample_ratio)


class _ReportingExporter(SpanExporter):
    """Logs an outage of the collector once, with its first reason, and its end."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._log = structlog.get_logger(logger_name="tequipy.tracing")
        self._failures = 0
        self._reason = _Reason()
        _LIBRARY.addFilter(self._reason)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans, which are lost if the collector does not take them."""
        self._reason.text = ""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._failures += 1
            if self._failures == 1:
                self._log.warning("span_export_failed", reason=self._reason.text)
        elif self._failures:
            self._log.info("span_export_resumed", failures=self._failures)
            self._failures = 0
        return result

    def shutdown(self) -> None:
        """Close the connections."""
        self._exporter.shutdown()
        _LIBRARY.removeFilter(self._reason)


class _Reason(logging.Filter):
    """Keeps the first message that the library logs during an export, and drops them all."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop a record."""
        self.text = self.text or record.getMessage()
        return False

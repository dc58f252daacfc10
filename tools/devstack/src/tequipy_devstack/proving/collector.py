"""A collector of OpenTelemetry (OTLP over HTTP) that keeps spans in memory, and fails as it is told."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tequipy_observability import SpanKind
from tequipy_observability.testing import RecordedSpan

_MILLISECOND = 1_000_000


class TraceCollector:
    """The spans that arrived, and how exports are answered: with `status`, or never while `hangs`."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.port = server.server_address[1]
        self.status = 200
        self.hangs = False
        self.requests: list[Mapping[str, str]] = []
        """The header fields of each export, by names in lower case."""
        self._spans: list[RecordedSpan] = []
        self._lock = threading.Lock()
        self.released = threading.Event()

    @property
    def endpoint(self) -> str:
        """The base URL, for `TEQUIPY_OBSERVABILITY__OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[RecordedSpan]:
        """The spans that were accepted, in the order in which they began."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.started_ms)

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Handle an export, and return the status of its answer."""
        self.requests.append({name.lower(): value for name, value in headers.items()})
        if self.hangs:
            self.released.wait()
        if path != "/v1/traces":
            return 404
        if self.status == 200:  # noqa: PLR2004 -- OK
            with self._lock:
                self._spans.extend(_spans_of(ExportTraceServiceRequest.FromString(body)))
        return self.status


@contextmanager
def trace_collector() -> Iterator[TraceCollector]:
    """Run a collector on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = collector.take(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Do not log exports."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        collector = TraceCollector(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.released.set()
            server.shutdown()
            thread.join()


def _spans_of(request: ExportTraceServiceRequest) -> Iterator[RecordedSpan]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _recorded(span, str(resource.get("service.name", "")))


def _recorded(span: ProtoSpan, service: str) -> RecordedSpan:
    return RecordedSpan(
        name=span.name,
        kind=SpanKind[ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        started_ms=span.start_time_unix_nano / _MILLISECOND,
        ended_ms=span.end_time_unix_nano / _MILLISECOND,
        attributes=_attributes(span.attributes),
        events=tuple(event.name for event in span.events),
        service=service,
    )


def _attributes(pairs: Any) -> dict[str, object]:  # noqa: ANN401 -- of protobuf
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}

"""The stage that records a server span for each request."""

from tequipy_observability._context import current_context, replace_traceparent
from tequipy_observability._tracing import Span, SpanKind, entry_span, tracing_enabled
from tequipy_observability.api.metrics import METHODS, OTHER_METHOD
from tequipy_observability.api.pipeline import INTERNAL_SERVER_ERROR, Exchange, Stage
from tequipy_observability.api.routes import NO_ROUTE, polled_endpoints


class TraceRequests(Stage):
    """Records one server span for each request, except for polled routes; list it directly after `ObserveRequests`.

    Does nothing while tracing is off. Log lines, exemplars and outgoing calls of the request carry the span's identity.
    """

    def before(self, exchange: Exchange) -> None:
        """Begin the span."""
        if not tracing_enabled() or exchange.route.endpoint in polled_endpoints(exchange.app):
            return
        span = _server_span(exchange)
        # First set, then entered, so that the access event after the end of the span still has its identity.
        replace_traceparent(span.traceparent or current_context().traceparent)
        span.__enter__()
        exchange.kept[self] = span

    async def failed(self, exchange: Exchange, error: BaseException) -> bool:
        """Mark the span as failed by an error that no other stage answered."""
        span: Span | None = exchange.kept.get(self)
        if span is not None and isinstance(error, Exception):
            span.fail(error)
        return False

    def after(self, exchange: Exchange) -> None:
        """Record the status, and end the span."""
        span: Span | None = exchange.kept.get(self)
        if span is None:
            return
        if span.recording:
            span.set("http.response.status_code", exchange.status)
            if exchange.status >= INTERNAL_SERVER_ERROR:
                span.fail(str(exchange.status))
        span.__exit__(None, None, None)


def _server_span(exchange: Exchange) -> Span:
    """Return the span of a request (OpenTelemetry, HTTP server spans).

    Path and query are left out, because they may hold personal data and secrets, and so are client and user agent.
    """
    scope, route, context = exchange.scope, exchange.route, current_context()
    method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
    matched = route is not NO_ROUTE
    operation = method if method != OTHER_METHOD else "HTTP"
    span = entry_span(
        operation, route.template if matched else "", kind=SpanKind.SERVER, traceparent=context.traceparent
    )
    if span.recording:
        span.set("http.request.method", method)
        span.set("url.scheme", scope["scheme"])
        span.set("network.protocol.version", scope["http_version"])
        span.set("tequipy.correlation_id", context.correlation_id or "")
        if matched:
            span.set("http.route", route.template)
    return span

"""The request context, spans and the redaction of secrets, for every package; needs the standard library alone.

Further public modules: `wiring` (settings and `configure_observability`), `api` and `celery` (`wire_observability`).
"""

from tequipy_observability._context import (
    CORRELATION_HEADER,
    MESSAGE_CORRELATION_HEADER,
    TRACE_HEADER,
    RequestContext,
    accept_correlation_id,
    bind_context,
    current_context,
    new_correlation_id,
    request_context,
)
from tequipy_observability._extras import needs_extra
from tequipy_observability._redaction import redacted
from tequipy_observability._tracing import NO_SPAN, Span, SpanKind, entry_span, span, tracing_enabled

__all__ = [
    "CORRELATION_HEADER",
    "MESSAGE_CORRELATION_HEADER",
    "NO_SPAN",
    "TRACE_HEADER",
    "RequestContext",
    "Span",
    "SpanKind",
    "accept_correlation_id",
    "bind_context",
    "current_context",
    "entry_span",
    "needs_extra",
    "new_correlation_id",
    "redacted",
    "request_context",
    "span",
    "tracing_enabled",
]

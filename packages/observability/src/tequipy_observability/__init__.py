"""The request context and the redaction of secrets, for every package; needs the standard library alone.

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
from tequipy_observability._redaction import redacted

__all__ = [
    "CORRELATION_HEADER",
    "MESSAGE_CORRELATION_HEADER",
    "TRACE_HEADER",
    "RequestContext",
    "accept_correlation_id",
    "bind_context",
    "current_context",
    "new_correlation_id",
    "redacted",
    "request_context",
]

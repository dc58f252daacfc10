"""The ground that every package may stand on: the request context. Standard library only.

Doors beside this one: `wiring` (settings and `configure_observability`), `api` and `celery` (`wire_observability`).
"""

from tequipy_observability.domain.context import (
    CORRELATION_HEADER,
    RequestContext,
    accept_correlation_id,
    accept_traceparent,
    bind_context,
    current_context,
    new_correlation_id,
    request_context,
)

__all__ = [
    "CORRELATION_HEADER",
    "RequestContext",
    "accept_correlation_id",
    "accept_traceparent",
    "bind_context",
    "current_context",
    "new_correlation_id",
    "request_context",
]

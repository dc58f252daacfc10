"""The outermost stage: sets the request context, writes the access event, updates the metrics."""

import logging
from functools import cached_property
from time import perf_counter
from typing import Final

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import Scope
from structlog.typing import FilteringBoundLogger

from tequipy_observability._context import (
    CORRELATION_HEADER,
    TRACE_HEADER,
    RequestContext,
    accept_correlation_id,
    accept_traceparent,
    current_context,
    request_context,
)
from tequipy_observability.api.metrics import HttpMetrics
from tequipy_observability.api.pipeline import INTERNAL_SERVER_ERROR, Exchange, Head, HeaderField, Stage
from tequipy_observability.api.routes import polled_endpoints
from tequipy_observability.logging import access_log
from tequipy_observability.logging.access import ACCESS_EVENT, ACCESS_LOGGER

# The form of header names in ASGI.
_CORRELATION_HEADER: Final = CORRELATION_HEADER.lower().encode()
_TRACE_HEADER: Final = TRACE_HEADER.encode()
_CONTEXT_HEADERS: Final = frozenset({_CORRELATION_HEADER, _TRACE_HEADER, b"user-agent"})
_USER_AGENT_LENGTH: Final = 512


class ResponseInterruptedError(Exception):
    """A response ended before it was complete; the message is the correlation id under which the cause was logged."""


_Observed = tuple[request_context, HeaderField, bool, float]
"""What is kept of a request until its end: its context, its correlation id, whether it polls, and when it began."""


class ObserveRequests(Stage):
    """Observes each request from start to end, and adds its correlation id to the response; list it first.

    Each request is logged as one `http_request` event and counted in `registry` under the template of its route. An
    exception that reaches the stage is logged once, with traceback and correlation id. If no response has started,
    the app's handler of `Exception` responds, or else a plain 500. If one has, `ResponseInterruptedError` makes the
    server close the connection.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = HttpMetrics(registry)
        self._app: FastAPI | None = None
        self._polled: set[object] = set()

    @cached_property
    def _log(self) -> FilteringBoundLogger:
        """The logger, bound once, when the first request arrives and logging has been configured."""
        log: FilteringBoundLogger = structlog.get_logger(logger_name=ACCESS_LOGGER).bind()
        return log

    def before(self, exchange: Exchange) -> None:
        """Set the request context."""
        given = _context_of(exchange.scope)
        if exchange.app is not self._app:
            self._app, self._polled = exchange.app, polled_endpoints(exchange.app)
        polled = exchange.route.endpoint in self._polled
        correlation = (_CORRELATION_HEADER, str(given.correlation_id).encode())
        context = request_context(given)
        context.__enter__()
        self._metrics.in_progress += 1
        exchange.kept[self] = context, correlation, polled, perf_counter()

    def head(self, exchange: Exchange, head: Head) -> None:
        """Add the correlation id."""
        head.set(exchange.kept[self][1])

    async def failed(self, exchange: Exchange, error: BaseException) -> bool:
        """Log the error, and respond to it as Starlette does, whose own error middleware is outside of all others."""
        if not isinstance(error, Exception):
            return False
        self._log.error("request_failed", exc_info=error)
        if not exchange.started:
            await self._respond(exchange, error)
        elif not exchange.complete:
            # The server closes the connection and logs this error instead of the traceback again.
            raise ResponseInterruptedError(current_context().correlation_id) from None
        return True

    async def _respond(self, exchange: Exchange, error: Exception) -> None:
        async def fail(*_: object) -> None:
            raise error

        host = exchange.app
        handler = host.exception_handlers.get(INTERNAL_SERVER_ERROR, host.exception_handlers.get(Exception))
        for each in (handler, None):
            try:
                respond = ServerErrorMiddleware(fail, handler=each, debug=host.debug)
                await respond(exchange.scope, exchange.receive, exchange.send)
            except Exception as failure:  # noqa: BLE001 -- it raises the error again after responding
                if failure is error:
                    return
                self._log.error("request_failed", exc_info=failure)  # of the handler

    def after(self, exchange: Exchange) -> None:
        """Count the request, and write its access event with the fields that were bound to the context meanwhile."""
        observed: _Observed = exchange.kept[self]
        own_context, _, polled, began = observed
        seconds = perf_counter() - began
        context, route, status, metrics = current_context(), exchange.route.template, exchange.status, self._metrics
        metrics.in_progress -= 1
        metrics.observe(
            method=context.method or "", route=route, status=status, seconds=seconds, size=exchange.size, by=context
        )
        if polled:
            level = logging.DEBUG
        elif status >= INTERNAL_SERVER_ERROR:
            level = logging.ERROR
        else:
            level = logging.INFO  # client errors too: a wrong password or an unknown path is no fault of ours
        duration_ms, log = round(seconds * 1000, 3), access_log()
        if log is not None:
            log.write(level, context, route=route, status=status, duration_ms=duration_ms)
        else:
            fields = {"route": route, "status": status, "duration_ms": duration_ms}
            self._log.log(level, ACCESS_EVENT, **fields, user_agent=context.user_agent)
        own_context.__exit__()


def _context_of(scope: Scope) -> RequestContext:
    correlation_id = traceparent = user_agent = None
    for name, value in scope["headers"]:
        if name not in _CONTEXT_HEADERS:
            continue
        if name == _CORRELATION_HEADER:
            correlation_id = value.decode("latin-1")
        elif name == _TRACE_HEADER:
            traceparent = value.decode("latin-1")
        else:
            # Cut off between words, because redaction would not recognise a part of a secret.
            text = value if len(value) <= _USER_AGENT_LENGTH else value[:_USER_AGENT_LENGTH].rpartition(b" ")[0]
            user_agent = text.decode("latin-1")
    client = scope.get("client")
    # Positional arguments are faster, and this runs for each request.
    return RequestContext(
        accept_correlation_id(correlation_id),
        accept_traceparent(traceparent) if traceparent is not None else None,
        scope["method"],
        None,  # the route is only known to the access event
        client[0] if client else None,
        user_agent,
    )

"""The outermost middleware (pure ASGI): sets the request context, writes the access event, updates the metrics."""

import logging
from time import perf_counter
from typing import Final

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability._context import (
    CORRELATION_HEADER,
    TRACE_HEADER,
    RequestContext,
    accept_correlation_id,
    accept_traceparent,
    request_context,
)
from tequipy_observability._tracing import NO_SPAN, Span, SpanKind, entry_span, tracing_enabled
from tequipy_observability.api.metrics import METHODS, OTHER_METHOD, HttpMetrics
from tequipy_observability.api.routes import NO_ROUTE, MatchedRoute, matched_route, polled_endpoints

# The form of header names in ASGI.
_CORRELATION_HEADER: Final = CORRELATION_HEADER.lower().encode()
_TRACE_HEADER: Final = TRACE_HEADER.encode()
_USER_AGENT_LENGTH: Final = 512
# The status while no response has been sent.
_INTERNAL_SERVER_ERROR: Final = 500


class ResponseInterruptedError(Exception):
    """A response ended before it was complete; the message is the correlation id under which the cause was logged."""


class ObservabilityMiddleware:
    """Observes each request from start to end, and adds its correlation id to the response; list it first.

    Each request is logged as one `http_request` event and counted in `registry` under the template of its route. An
    exception that reaches the middleware is logged once, with traceback and correlation id. If no response has started,
    the app's handler of `Exception` responds, or else a plain 500. If one has, `ResponseInterruptedError` makes the
    server close the connection.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._metrics = HttpMetrics(registry)
        self._log = structlog.get_logger(logger_name="tequipy.access").bind()  # bound once instead of per request
        self._debug = self._log.is_enabled_for(logging.DEBUG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = _context_of(scope)
        correlation = (_CORRELATION_HEADER, str(context.correlation_id).encode())
        status, size = _INTERNAL_SERVER_ERROR, 0
        started = complete = False

        async def send_observed(message: Message) -> None:
            nonlocal status, size, started, complete
            kind = message["type"]
            if kind == "http.response.start":
                started = True
                status = message["status"]
                headers = [header for header in message.get("headers", ()) if header[0] != _CORRELATION_HEADER]
                headers.append(correlation)
                message["headers"] = headers
            elif kind == "http.response.body":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        # Read first, because an app that is mounted in this one changes the scope.
        host: FastAPI = scope["app"]
        route = matched_route(scope)
        polled = route.endpoint in polled_endpoints(host)
        span = NO_SPAN
        if tracing_enabled() and not polled:
            span = _server_span(scope, route, context)
            context = context._replace(traceparent=span.traceparent or context.traceparent)
        metrics = self._metrics
        metrics.in_progress += 1
        began = perf_counter()
        with request_context(context), span:
            try:
                await self._app(scope, receive, send_observed)
            except Exception as error:  # noqa: BLE001 -- logged here, where the correlation id is known
                self._log.error("request_failed", exc_info=error)
                span.fail(error)
                if not started:
                    await self._respond(host, error, scope, receive, send_observed)
                elif not complete:
                    # The server closes the connection and logs this error instead of the traceback again.
                    raise ResponseInterruptedError(context.correlation_id) from None
            finally:
                seconds = perf_counter() - began
                metrics.in_progress -= 1
                if span.recording:
                    _record_answer(span, status)
                metrics.observe(
                    method=context.method or "",
                    route=route.template,
                    status=status,
                    seconds=seconds,
                    size=size,
                    by=context,
                )
                self._log_access(route, context, status, seconds, polled=polled)

    async def _respond(self, host: FastAPI, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to an unhandled error as Starlette does, whose own error middleware is outside of all others."""

        async def fail(*_: object) -> None:
            raise error

        handler = host.exception_handlers.get(_INTERNAL_SERVER_ERROR, host.exception_handlers.get(Exception))
        for each in (handler, None):
            try:
                await ServerErrorMiddleware(fail, handler=each, debug=host.debug)(scope, receive, send)
            except Exception as failure:  # noqa: BLE001 -- it raises the error again after responding
                if failure is error:
                    return
                self._log.error("request_failed", exc_info=failure)  # of the handler

    def _log_access(
        self, route: MatchedRoute, context: RequestContext, status: int, seconds: float, *, polled: bool
    ) -> None:
        """Write the access event; the request context adds the fields that were bound meanwhile."""
        if polled:
            if not self._debug:
                return
            write = self._log.debug
        elif status >= _INTERNAL_SERVER_ERROR:
            write = self._log.error
        else:
            write = self._log.info  # client errors too: a wrong password or an unknown path is no fault of ours
        duration_ms = round(seconds * 1000, 3)
        write(
            "http_request",
            route=route.template,
            status=status,
            duration_ms=duration_ms,
            user_agent=context.user_agent,
        )


def _server_span(scope: Scope, route: MatchedRoute, context: RequestContext) -> Span:
    """Return the span of a request (OpenTelemetry, HTTP server spans).

    Path and query are left out, because they may hold personal data and secrets, and so are client and user agent.
    """
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


def _record_answer(span: Span, status: int) -> None:
    span.set("http.response.status_code", status)
    if status >= _INTERNAL_SERVER_ERROR:
        span.fail(str(status))


def _context_of(scope: Scope) -> RequestContext:
    correlation_id = traceparent = user_agent = None
    for name, value in scope["headers"]:
        if name == _CORRELATION_HEADER:
            correlation_id = value.decode("latin-1")
        elif name == _TRACE_HEADER:
            traceparent = value.decode("latin-1")
        elif name == b"user-agent":
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

"""The head of requests: nothing invalid, the fields of the running request, and no secrets to another server."""

import re
from typing import Final

import httpx

from tequipy_observability import CORRELATION_HEADER, TRACE_HEADER, Span, current_context

_TRACE_EXTENSION: Final = "tequipy_traceparent"
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, section 5.6.2)."""
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
"""RFC 9110, section 5.5: no control characters but tabs, and no white space around it."""
_FORWARDED: Final = frozenset(
    {
        CORRELATION_HEADER.lower().encode(),
        TRACE_HEADER.encode(),
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
        b"transfer-encoding",
        b"user-agent",
    }
)
"""What a redirect takes along to another server."""
_LAST_PORT: Final = 65535
_HTTPS_PORTS: Final = (None, 443)
_HTTP_PORTS: Final = (None, 80)


def check_request(request: httpx.Request) -> None:
    """Raise `httpx.LocalProtocolError` for a method, a port or a header field that is not allowed.

    h2 sends any bytes in a field, h11 quotes the value in its error, which may be a secret, and the event loop raises
    errors of its own for ports.
    """
    if not _NAME.fullmatch(request.method.encode()):
        raise httpx.LocalProtocolError("The method has characters that are not allowed.", request=request)
    if request.url.port is not None and not 0 < request.url.port <= _LAST_PORT:
        raise httpx.LocalProtocolError("The port is not a number from 1 to 65535.", request=request)
    for name, value in request.headers.raw:
        if not _NAME.fullmatch(name):
            raise httpx.LocalProtocolError("The name of a header field is not valid.", request=request)
        if not _VALUE.fullmatch(value):
            raise httpx.LocalProtocolError(f"The value of {name.decode()} is not valid.", request=request)


def remove_private_fields(request: httpx.Request, origin: httpx.URL) -> None:
    """Remove what is meant for the server at `origin` from a request that a redirect leads to another one.

    httpx removes Authorization and Cookie alone, but services have names of their own for an API key.
    """
    if not _is_same_server(origin, request.url):
        request.headers = httpx.Headers([field for field in request.headers.raw if field[0].lower() in _FORWARDED])


def _is_same_server(first: httpx.URL, second: httpx.URL) -> bool:
    """Return whether URLs have the same origin, or the second one is the first one with HTTPS instead of HTTP."""
    if (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port):
        return True
    upgraded = (first.scheme, second.scheme) == ("http", "https")
    return upgraded and first.host == second.host and first.port in _HTTP_PORTS and second.port in _HTTPS_PORTS


def identify(request: httpx.Request, span: Span) -> None:
    """Add the correlation id and the trace of the running request or task, unless the caller has set its own."""
    context = current_context()
    if context.correlation_id is not None:
        request.headers.setdefault(CORRELATION_HEADER, context.correlation_id)
    traceparent = span.traceparent or context.traceparent
    # A redirected request has the field of the request before, which is another span.
    replaced = {None, request.extensions.get(_TRACE_EXTENSION)}
    if traceparent is not None and request.headers.get(TRACE_HEADER) in replaced:
        request.headers[TRACE_HEADER] = request.extensions[_TRACE_EXTENSION] = traceparent

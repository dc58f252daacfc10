"""Security headers on every response, `no-store` on some, and CORS for the configured origins."""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from tequipy_observability import CORRELATION_HEADER, TRACE_HEADER
from tequipy_observability.api import Exchange, Head, HeaderField, Stage, require_stages
from tequipy_platform._errors import Forbidden
from tequipy_platform.web.origins import origin_refusal
from tequipy_platform.web.problems import problem_response

REQUESTED_WITH_HEADER: Final = "X-Requested-With"
"""A header that forms of other sites cannot send, so that it shows a request of our own pages."""

RATE_LIMIT_HEADER: Final = "RateLimit"
RATE_LIMIT_POLICY_HEADER: Final = "RateLimit-Policy"
"""The headers of rate limits (draft-ietf-httpapi-ratelimit-headers-11)."""

_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The API serves no pages, so a browser needs to load, run, frame or submit nothing.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_HSTS: Final = {"Strict-Transport-Security": "max-age=63072000; includeSubDomains"}

_NO_CONTENT: Final = 204  # a number, because reading a member of `HTTPStatus` takes longer
_NO_STORE: Final = (b"cache-control", b"no-store")
_VARY: Final = (b"vary", b"Origin")


_CORS_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_CORS_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Range",
    REQUESTED_WITH_HEADER,
    TRACE_HEADER,
    CORRELATION_HEADER,
)
_CORS_EXPOSED: Final = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Location",
    RATE_LIMIT_HEADER,
    RATE_LIMIT_POLICY_HEADER,
    "Retry-After",
    CORRELATION_HEADER,
)


def security_headers(*, hsts: bool) -> dict[str, str]:
    """Return the security header fields of every answer; `hsts` is off where plain HTTP is served (local)."""
    return _SECURITY_HEADERS | (_HSTS if hsts else {})


class Cors(Stage):
    """CORS (Fetch standard, section 3.2): the pages of `origins` may call the API with credentials.

    A refused preflight request is told which header was refused. `setting` names the setting that lists the origins.
    Without origins the stage does nothing.
    """

    def __init__(self, origins: Collection[str], *, setting: str | None = None) -> None:
        async def unused(*_: object) -> None:
            """Do nothing: the pipeline calls the app itself."""

        self.active = bool(origins)
        self._setting = setting
        self._origins = {origin.encode("latin-1") for origin in origins}
        self._rules = CORSMiddleware(
            unused,
            allow_origins=list(origins),
            allow_credentials=True,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_HEADERS,
            expose_headers=_CORS_EXPOSED,
        )
        self._fields = _encoded(self._rules.simple_headers)

    def before(self, exchange: Exchange) -> Response | None:
        """Answer a preflight request."""
        if exchange.scope["method"] != "OPTIONS":
            return None
        headers = Headers(scope=exchange.scope)
        if "origin" not in headers or "access-control-request-method" not in headers:
            return None
        exchange.kept[self] = True
        response = self._rules.preflight_response(headers)
        if response.status_code == HTTPStatus.OK:
            return response
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return problem_response(Forbidden(self._refusal(headers)), headers=kept)

    def head(self, exchange: Exchange, head: Head) -> None:
        """Allow the page that sent the request to read the response."""
        if self in exchange.kept:  # the preflight's response is complete
            return
        for name, value in exchange.scope["headers"]:
            if name == b"origin":
                for field in self._fields:
                    head.set(field)
                if value in self._origins:
                    head.set((b"access-control-allow-origin", value))
                break
        vary = head.values(b"vary")
        head.set((b"vary", b", ".join([*vary, b"Origin"])) if vary else _VARY)

    def _refusal(self, headers: Headers) -> str:
        """Return which header of a preflight request was refused, and why; of its values only origins are repeated."""
        origin = headers["origin"]
        if not self._rules.is_allowed_origin(origin):
            return origin_refusal(origin, setting=self._setting)
        if headers["access-control-request-method"] not in _CORS_METHODS:
            return f"Access-Control-Request-Method is not one of {', '.join(_CORS_METHODS)}."
        return (
            f"Access-Control-Request-Headers names a header that is not allowed; beside those that need no permission "
            f"(Fetch standard, section 2.2.2) {', '.join(_CORS_HEADERS)} are."
        )


class SecurityHeaders(Stage):
    """Adds the security headers that a response lacks, and removes the content type of a response without content.

    A route may set its own values. `hsts` is off where plain HTTP is served (local).
    """

    def __init__(self, *, hsts: bool = True) -> None:
        self._fields = _encoded(security_headers(hsts=hsts))
        self._names = frozenset(name for name, _ in self._fields)

    def head(self, exchange: Exchange, head: Head) -> None:  # noqa: ARG002 -- the same for all requests
        """Add the headers."""
        if head.status == _NO_CONTENT:  # FastAPI sets a content type nevertheless
            head.remove(b"content-type")
        head.set_missing(self._fields, self._names)


class NoStore(Stage):
    """Sets `Cache-Control: no-store` on all responses of the endpoints that were passed to `wire_no_store`.

    It is a stage and not a dependency, because 405, 415 and 422 are sent before any dependency runs. Errors without a
    route have the header anyway, because they are problem documents.
    """

    def __init__(self) -> None:
        self._app: FastAPI | None = None
        self._endpoints: set[object] = set()

    def before(self, exchange: Exchange) -> None:
        """Find out whether the route is covered, before a mounted app changes the scope."""
        if exchange.app is not self._app:
            self._app, self._endpoints = exchange.app, _no_store_endpoints(exchange.app)
        if exchange.route.endpoint in self._endpoints:
            exchange.kept[self] = True

    def head(self, exchange: Exchange, head: Head) -> None:
        """Forbid to store the response of a covered route."""
        if self in exchange.kept:
            head.set(_NO_STORE)


def wire_no_store(app: FastAPI, *endpoints: object) -> None:
    """Forbid that responses of these endpoints are stored, errors included (RFC 6749, section 5.1).

    `NoStore` must be in the app's pipeline.
    """
    require_stages(app, NoStore)
    _no_store_endpoints(app).update(endpoints)


def _no_store_endpoints(app: FastAPI) -> set[object]:
    if not hasattr(app.state, "no_store_endpoints"):
        app.state.no_store_endpoints = set()
    endpoints: set[object] = app.state.no_store_endpoints
    return endpoints


def _encoded(fields: Mapping[str, str]) -> list[HeaderField]:
    """Return header fields in ASGI's form: encoded once instead of for each response."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]

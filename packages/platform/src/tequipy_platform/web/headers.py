"""Security headers on every response, `no-store` on some, and CORS for the configured origins."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from tequipy_observability import CORRELATION_HEADER, TRACE_HEADER
from tequipy_observability.api import Exchange, Head, HeaderField, Stage, require_stages
from tequipy_platform._errors import Forbidden
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


def security_headers(*, hsts: bool) -> dict[str, str]:
    """Return the security header fields of every answer; `hsts` is off where plain HTTP is served (local)."""
    return _SECURITY_HEADERS | (_HSTS if hsts else {})


class HeaderSettings(BaseModel):
    """The origins whose pages may call the API."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {"cors_origins": "should be https:// origins alone in production"}

    cors_origins: tuple[str, ...] = ()
    """Origins in the form that browsers send (RFC 6454): `https://app.example.com`, with a port if it is not 443."""

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            url = urlsplit(origin)
            # `*` is refused too: with credentials it would give every page access to every account.
            if url.scheme not in {"http", "https"} or not url.hostname or origin != f"{url.scheme}://{url.netloc}":
                raise PydanticCustomError("origin", "should be origins as https://app.example.com, never *")
        return origins

    def production_faults(self) -> list[tuple[str, str]]:
        """Refuse `http` origins in production: an attacker on the network can change their pages."""
        plain = any(not origin.startswith("https://") for origin in self.cors_origins)
        return [("cors_origins", self.production_rules["cors_origins"])] if plain else []


class _Preflights(CORSMiddleware):
    """Starlette's rules of CORS, with problem documents for refused preflight requests."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Respond to a preflight request (Fetch standard, section 3.2.2)."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return problem_response(Forbidden("This origin, method or header is not allowed."), headers=kept)


class Cors(Stage):
    """CORS as Starlette's middleware does it: the pages of `origins` may call the API with credentials.

    Without origins it does nothing.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        async def unused(*_: object) -> None:
            """Do nothing: the pipeline calls the app itself."""

        self.active = bool(origins)
        self._origins = {origin.encode("latin-1") for origin in origins}
        self._rules = _Preflights(
            unused,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=(
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                REQUESTED_WITH_HEADER,
                TRACE_HEADER,
                CORRELATION_HEADER,
            ),
            expose_headers=("Location", RATE_LIMIT_HEADER, RATE_LIMIT_POLICY_HEADER, "Retry-After", CORRELATION_HEADER),
        )
        self._fields = _encoded(self._rules.simple_headers)

    def before(self, exchange: Exchange) -> Response | None:
        """Answer a preflight request."""
        origin = next((value for name, value in exchange.scope["headers"] if name == b"origin"), None)
        if origin is not None and exchange.scope["method"] == "OPTIONS":
            headers = Headers(scope=exchange.scope)
            if "access-control-request-method" in headers:
                return self._rules.preflight_response(headers)
        exchange.kept[self] = origin
        return None

    def head(self, exchange: Exchange, head: Head) -> None:
        """Allow the page that sent the request to read the response."""
        if self not in exchange.kept:
            return
        origin: bytes | None = exchange.kept[self]
        if origin is not None:
            for field in self._fields:
                head.set(field)
            if origin in self._origins:
                head.set((b"access-control-allow-origin", origin))
        head.set((b"vary", b", ".join([*head.values(b"vary"), b"Origin"])))


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

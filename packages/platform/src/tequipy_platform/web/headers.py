"""Security headers on every response, `no-store` on some, and CORS for the configured origins."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability import CORRELATION_HEADER, TRACE_HEADER
from tequipy_observability.api import matched_route, require_middleware
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


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, with problem documents for refused preflight requests.

    The pages of `origins` may call the API with credentials; without origins it does nothing.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await (super().__call__ if self.allow_origins else self.app)(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Respond to a preflight request (Fetch standard, section 3.2.2)."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return problem_response(Forbidden("This origin, method or header is not allowed."), headers=kept)


class SecurityHeaders:
    """Adds the security headers that a response lacks, and removes the content type of a response without content.

    A route may set its own values. `hsts` is off where plain HTTP is served (local).
    """

    def __init__(self, app: ASGIApp, *, hsts: bool = True) -> None:
        self._app = app
        # In ASGI's form: encoded once instead of for each response.
        self._headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in security_headers(hsts=hsts).items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if message["status"] == HTTPStatus.NO_CONTENT:  # FastAPI sets a content type nevertheless
                    headers = [header for header in headers if header[0] != b"content-type"]
                present = {name.lower() for name, _ in headers}
                message["headers"] = headers + [header for header in self._headers if header[0] not in present]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class NoStore:
    """Sets `Cache-Control: no-store` on all responses of the endpoints that were passed to `wire_no_store`.

    It is a middleware and not a dependency, because 405, 415 and 422 are sent before any dependency runs. Errors
    without a route have the header anyway, because they are problem documents.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_no_store(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        covered = scope["type"] == "http" and matched_route(scope).endpoint in _no_store_endpoints(scope["app"])
        await self._app(scope, receive, send_no_store if covered else send)


def wire_no_store(app: FastAPI, *endpoints: object) -> None:
    """Forbid that responses of these endpoints are stored, errors included (RFC 6749, section 5.1).

    `NoStore` must be in the app's middleware.
    """
    require_middleware(app, NoStore)
    _no_store_endpoints(app).update(endpoints)


def _no_store_endpoints(app: FastAPI) -> set[object]:
    try:  # called for each request, and `hasattr` would read the state twice
        endpoints: set[object] = app.state.no_store_endpoints
    except AttributeError:
        endpoints = app.state.no_store_endpoints = set()
    return endpoints

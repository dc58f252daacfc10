"""Security headers on every response, and CORS for the configured origins."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, Protocol

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability import CORRELATION_HEADER
from tequipy_platform.api.problems import problem_response
from tequipy_platform.domain.exceptions import Forbidden

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


class HeaderPolicy(Protocol):
    """The settings of `wire_headers`, such as `tequipy_platform.wiring.HeaderSettings`."""

    @property
    def cors_origins(self) -> Sequence[str]:
        """The origins whose pages may call the API with credentials; never `*`."""


def wire_headers(app: FastAPI, settings: HeaderPolicy, *, hsts: bool = True) -> None:
    """Add security headers to every response of `app`, including HSTS unless `hsts` is off (local: plain HTTP).

    Wire it outside of (before) errors, so that error responses carry them too. A route may set its own values.
    """
    app.user_middleware.append(Middleware(SecurityHeaders, headers=security_headers(hsts=hsts)))
    if settings.cors_origins:
        app.user_middleware.append(
            Middleware(
                Cors,
                allow_origins=settings.cors_origins,
                allow_credentials=True,
                allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
                allow_headers=(
                    "Authorization",
                    "Content-Type",
                    "Idempotency-Key",
                    "X-Requested-With",
                    "traceparent",
                    CORRELATION_HEADER,
                ),
                expose_headers=("Location", "RateLimit", "RateLimit-Policy", "Retry-After", CORRELATION_HEADER),
            )
        )


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, with problem documents for refused preflight requests."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Respond to a preflight request (Fetch standard, section 3.2.2)."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return problem_response(Forbidden("This origin, method or header is not allowed."), headers=kept)


class SecurityHeaders:
    """Adds the headers that a response lacks, and removes the content type of a response without content."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app = app
        # In ASGI's form: encoded once instead of for each response.
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

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

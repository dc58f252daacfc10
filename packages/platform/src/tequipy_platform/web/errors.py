"""Converts all errors of a request into problem documents: domain errors, framework errors and bugs."""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tequipy_observability.api import DuplicateAuthorization, Exchange, Stage, require_stages, route_table
from tequipy_platform._errors import (
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from tequipy_platform._events import JSON
from tequipy_platform.web.limits import LimitBodies, is_json
from tequipy_platform.web.openapi import extend_openapi
from tequipy_platform.web.problems import (
    AmbiguousAuthorization,
    BodyTooLarge,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    UnsupportedMediaType,
    problem_response,
    status_of,
)

logger = logging.getLogger(__name__)

_BY_STATUS: Final[dict[int, type[DomainError]]] = {
    400: MalformedBody,  # FastAPI raises it when it cannot parse a body
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}
"""The kinds of Starlette's and FastAPI's own errors."""

_CODES: Final = {429: TooMany.code}
"""Error codes of statuses whose kind of error needs more than a status to be created."""

_MAX_ERRORS: Final = 50
"""The number of faults in one response; a list of a million wrong items must not cause a long response."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""The form of a field's name; a JSON pointer stops at anything else, which would echo the input."""


def wire_errors(app: FastAPI) -> None:
    """Make every error response of `app` a problem document.

    `LimitBodies` and, last, `CatchErrors` must be in the app's pipeline: they respond to errors before and after the
    route.
    """
    require_stages(app, LimitBodies, CatchErrors)
    app.add_exception_handler(DomainError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    _redirect_slashes(app)
    extend_openapi(app, _remove_own_errors)


def _remove_own_errors(document: dict[str, Any]) -> None:
    """Remove FastAPI's validation error from the OpenAPI document: no response of the app is one.

    FastAPI documents it for every route with a parameter that does not document 422 itself.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)


def _redirect_slashes(app: FastAPI) -> None:
    """Redirect to the same path with or without trailing slashes if a route serves that; the target is relative.

    The router's own redirect uses the host that the request names, which another site may have chosen.
    """
    if not app.router.redirect_slashes:
        return
    app.router.redirect_slashes = False
    not_found, routes = app.router.default, route_table(app)

    async def redirect_or_not_found(scope: Scope, receive: Receive, send: Send) -> None:
        location = routes.slash_redirect(scope) if scope["type"] == "http" else None
        if location is None:
            await not_found(scope, receive, send)
            return
        response = Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location})
        await response(scope, receive, send)

    app.router.default = redirect_or_not_found


class CatchErrors(Stage):
    """Responds to errors that no handler caught, which are bugs: they are logged but not shown; list it last.

    Starlette's own handler is outside of all stages, so its 500 would lack their headers.
    """

    async def failed(self, exchange: Exchange, error: BaseException) -> bool:
        """Answer with 500 or 503, unless a response has started: the server then closes the connection."""
        if exchange.started:
            return False
        if isinstance(error, asyncio.CancelledError):
            await exchange.answer(problem_response(Unavailable()))  # the server is shutting down
            return False
        if not isinstance(error, Exception):
            return False
        await exchange.answer(_error_response(error))
        return True


def _error_response(error: Exception) -> Response:
    if isinstance(error, TimeoutError):  # of a driver, or of a cached load
        cause, error = error, Unavailable()
        error.__cause__ = cause
    if not isinstance(error, DomainError) or status_of(type(error)) == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request_failed", exc_info=error)
        return problem_response(InternalError())
    if isinstance(error, Unavailable):
        logger.warning("request_refused", extra={"error": type(error.__cause__ or error).__name__})
    return problem_response(error)


async def _on_domain_error(_: Request, error: Exception) -> Response:
    return _error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- Starlette's handler type is wider than its calls
    if isinstance(error, DuplicateAuthorization):
        return problem_response(AmbiguousAuthorization())
    kind = _BY_STATUS.get(error.status_code)
    code = None if kind else _CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # RFC 9110, section 15.5.6: the methods of all routes at this path; the router names those of the first route.
        headers["Allow"] = ", ".join(sorted(route_table(request.app).methods_at(request.scope)))
    return problem_response((kind or DomainError)(code=code), status=error.status_code, headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- as above
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem_response(MalformedBody())
    if isinstance(error.body, bytes) and not is_json(request.headers.get("content-type", "")):
        return problem_response(UnsupportedMediaType())
    unique: dict[tuple[JSON, JSON], JSON] = {(each["pointer"], each["code"]): {**each} for each in map(_fault, faults)}
    return problem_response(Invalid(errors=[*unique.values()][:_MAX_ERRORS]))


def _fault(fault: dict[str, Any]) -> dict[str, JSON]:
    # With an "error" in its context, pydantic's message quotes the input or an exception's text.
    quotes = "error" in fault.get("ctx", {})
    path = fault["loc"][1:]  # the first step is body, query, path, header or cookie
    if fault["type"] == "extra_forbidden":
        path = path[:-1]  # the name of an unknown field comes from the client, and may be a secret
    return {
        "pointer": _pointer(path),
        "code": str(fault["type"]),
        "detail": "The value is not valid." if quotes else str(fault["msg"]),
    }


def _pointer(path: tuple[str | int, ...]) -> str:
    """Return a JSON pointer (RFC 6901) that ends before the first step that is not a field's name."""
    pointer = ""
    for step in path:
        if not _NAME.fullmatch(str(step)):
            break
        pointer += f"/{step}"
    return pointer

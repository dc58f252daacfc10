"""Turns whatever a request ends in into a problem document: domain errors, framework errors, bugs."""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import TwoAuthorizations, route_table
from tequipy_platform.api.limits import BodyLimits, LimitBodies, body_sizes, is_json
from tequipy_platform.api.problems import (
    AmbiguousAuthorization,
    BodyTooLarge,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    UnsupportedMediaType,
    problem_response,
    status_of,
)
from tequipy_platform.domain.events import JSON
from tequipy_platform.domain.exceptions import (
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)

_logger = logging.getLogger(__name__)

_BY_STATUS: Final[dict[int, type[DomainError]]] = {
    400: MalformedBody,  # FastAPI raises it when it cannot parse a body
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}
"""What Starlette's and FastAPI's own errors mean."""

_CODES: Final = {429: TooMany.code}
"""Codes of statuses whose kind of error cannot be made from a status alone."""

_MOST_ERRORS: Final = 50
"""How many faults of one request are told: a list of a million wrong items is no reason for a long answer."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What a field's name looks like; anything else in a pointer would echo what was sent."""


def wire_errors(app: FastAPI, limits: BodyLimits | None = None) -> None:
    """Make every error answer of `app` a problem document, and refuse bodies that are too large or too deep.

    Wire it inside (after) observability and headers, so that error answers carry theirs. Behind it cookies are read by
    `read_cookie` alone.
    """
    app.user_middleware.append(Middleware(CatchErrors))
    app.user_middleware.append(
        Middleware(LimitBodies, limits=limits or BodyLimits(), routes=route_table(app), sizes=body_sizes(app))
    )
    app.add_exception_handler(DomainError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    _redirect_slashes(app)


def _redirect_slashes(app: FastAPI) -> None:
    """Redirect to the same path with or without slashes at its end where a route serves that, naming no host.

    The router's own redirect names the one that the request says: a page of another site may have put it there.
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
        answer = Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location})
        await answer(scope, receive, send)

    app.router.default = redirect_or_not_found


class CatchErrors:
    """Answers errors that no handler saw: those of middleware, and bugs, which are logged once and shown to nobody.

    Starlette's own last resort stands outside of every other middleware: its 500 would lose the correlation header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            if not started and scope["type"] == "http":
                await problem_response(Unavailable())(scope, receive, send)  # the server ends and waits no longer
            raise
        except Exception as error:
            if started or scope["type"] != "http":
                raise  # too late for an answer: the server logs it and breaks the connection off
            await _answer(error)(scope, receive, send)


def _answer(error: Exception) -> Response:
    if isinstance(error, TimeoutError):  # of a driver, or of a cached load that waited for one
        cause, error = error, Unavailable()
        error.__cause__ = cause
    if not isinstance(error, DomainError) or status_of(type(error)) == HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.error("unhandled error", exc_info=error)
        return problem_response(InternalError())
    if isinstance(error, Unavailable):
        _logger.warning("unavailable: %s", type(error.__cause__ or error).__name__)
    return problem_response(error)


async def _on_domain_error(_: Request, error: Exception) -> Response:
    return _answer(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- Starlette's handler type is wider than what it calls us with
    if isinstance(error, TwoAuthorizations):
        return problem_response(AmbiguousAuthorization())
    kind = _BY_STATUS.get(error.status_code)
    code = None if kind else _CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # RFC 9110, section 15.5.6: of all routes at this path; the router tells those of the first.
        headers["Allow"] = ", ".join(sorted(route_table(request.app).methods_at(request.scope)))
    return problem_response((kind or DomainError)(code=code), status=error.status_code, headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- as above
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem_response(MalformedBody())
    if isinstance(error.body, bytes) and not is_json(request.headers.get("content-type", "")):
        return problem_response(UnsupportedMediaType())
    told: dict[tuple[JSON, JSON], JSON] = {(each["pointer"], each["code"]): {**each} for each in map(_fault, faults)}
    return problem_response(Invalid(errors=[*told.values()][:_MOST_ERRORS]))


def _fault(fault: dict[str, Any]) -> dict[str, JSON]:
    # With an "error" in its context, pydantic's message quotes what was sent, or somebody else's exception does.
    quotes = "error" in fault.get("ctx", {})
    path = fault["loc"][1:]  # the first step is body, query, path, header or cookie
    if fault["type"] == "extra_forbidden":
        path = path[:-1]  # the name of an unknown field was sent by somebody, and may be a secret
    return {
        "pointer": _pointer(path),
        "code": str(fault["type"]),
        "detail": "The value is not valid." if quotes else str(fault["msg"]),
    }


def _pointer(path: tuple[str | int, ...]) -> str:
    """Return a JSON Pointer (RFC 6901) as deep as its steps are names."""
    pointer = ""
    for step in path:
        if not _NAME.fullmatch(str(step)):
            break
        pointer += f"/{step}"
    return pointer

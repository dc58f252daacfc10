"""Problem documents (RFC 9457): the HTTP status and body of each kind of error."""

import json
import math
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from tequipy_observability import current_context
from tequipy_platform._errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    PreconditionFailed,
    TooMany,
    Unauthenticated,
    Unavailable,
)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


class MalformedBody(Malformed):
    """The body is not JSON in UTF-8 (RFC 8259), is nested too deeply, or has an object of too many members."""

    code = "malformed_body"
    title = "Malformed body"
    detail = "The body is not valid JSON in UTF-8, is nested too deeply, or has an object of more than 1,000 members."


class AmbiguousAuthorization(Malformed):
    """Two `Authorization` headers were sent; only one is allowed."""

    code = "ambiguous_credentials"
    title = "Ambiguous credentials"
    detail = "Send one Authorization header."


class MethodNotAllowed(DomainError):
    """The route exists, but not for this method; `Allow` lists its methods."""

    code = "method_not_allowed"
    title = "Method not allowed"
    detail = "This method is not allowed here."


class BodyTooLarge(DomainError):
    """The body is larger than this route allows."""

    code = "body_too_large"
    title = "Body too large"
    detail = "The body is too large."


class RequestTimeout(DomainError):
    """The client took too long to send the head or the body of its request."""

    code = "request_timeout"
    title = "Request timeout"
    detail = "The request was not sent in time."


class RangeNotSatisfiable(DomainError):
    """The requested range begins after the end of the content, whose length `Content-Range` tells."""

    code = "range_not_satisfiable"
    title = "Range not satisfiable"
    detail = "The range begins after the end of the content: Content-Range has its length."


class HeadTooLarge(DomainError):
    """The request line and header fields, or the trailer fields, are larger than the server allows."""

    code = "head_too_large"
    title = "Request header fields too large"
    detail = "The request line and header fields are too large."


class UnsupportedMediaType(DomainError):
    """The route does not accept the body's media type."""

    code = "unsupported_media_type"
    title = "Unsupported media type"
    detail = "Send the body as application/json."


class InternalError(DomainError):
    """The server failed; the log holds the cause under the correlation id."""

    code = "internal_error"
    title = "Internal error"
    detail = "Something went wrong on our side."


STATUSES: Final[Mapping[type[DomainError], int]] = {
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    RangeNotSatisfiable: 416,
    Invalid: 422,
    TooMany: 429,
    HeadTooLarge: 431,
    DomainError: 500,
    Unavailable: 503,
}
"""The only mapping from kinds of errors to statuses; an error without a kind is a server error."""

BODY_PROBLEMS: Final[tuple[type[DomainError], ...]] = (
    MalformedBody,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    Invalid,
)
"""The errors of every route with a JSON body, for `problem_responses`."""


def status_of(kind: type[DomainError]) -> int:
    """Return the status of the nearest kind among an error's base classes."""
    return next(STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in STATUSES)


def problem_response(
    error: DomainError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as a problem document, with the status and headers of its kind."""
    status = status or status_of(type(error))
    document = error.members | {
        "type": f"urn:tequipy:problem:{error.code}",
        "title": error.title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "correlation_id": current_context().correlation_id,
    }
    return Response(
        # ASCII only, so that any quoted text can be encoded.
        json.dumps(document, allow_nan=False).encode("ascii"),
        status_code=status,
        # Errors must not be cached: they may come from a proxy, or be temporary.
        headers={"Cache-Control": "no-store", **(headers or {}), **_headers(error)},
        media_type=PROBLEM_MEDIA_TYPE,
    )


def _headers(error: DomainError) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        # RFC 6750, section 3: no error code for a request that carried no token.
        bad_token = error.code == "invalid_token"
        return {"WWW-Authenticate": 'Bearer error="invalid_token"' if bad_token else "Bearer"}
    if isinstance(error, TooMany | Unavailable):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return {}

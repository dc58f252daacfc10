"""Errors by kind; the web layer maps each kind to one HTTP status."""

from collections.abc import Mapping
from typing import ClassVar

from tequipy_platform._events import JSON


class DomainError(Exception):
    """The base class of all errors that are reported to the caller.

    `code` is stable, in snake_case, and meant for programs. `detail` is one sentence for people that says how to
    correct the request. `members` become extension members of the problem document (RFC 9457, section 3.2), and
    `member_schemas` are their JSON schemas, with an example each. None of them may hold a secret.
    """

    code: str = "error"
    title: ClassVar[str] = "Error"
    detail: str = "The request could not be served."
    member_schemas: ClassVar[Mapping[str, JSON]] = {}

    def __init__(self, detail: str | None = None, *, code: str | None = None, **members: JSON) -> None:
        self.code = code or type(self).code
        self.detail = detail or type(self).detail
        self.members = members
        super().__init__(self.detail)


class Malformed(DomainError):
    """The request cannot be parsed, whatever the values in it are."""

    code = "malformed"
    title = "Malformed request"
    detail = "The request could not be understood."


class Invalid(DomainError):
    """The request can be parsed but breaks a rule."""

    code = "validation_failed"
    title = "Validation failed"
    detail = "The request breaks a rule."
    member_schemas: ClassVar[Mapping[str, JSON]] = {
        "errors": {
            "type": "array",
            "description": "The faults. `pointer` is the JSON pointer (RFC 6901) of the value, or empty for the body.",
            "items": {
                "title": "FieldError",
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("pointer", "code", "detail")},
                "required": ["pointer", "code", "detail"],
            },
            "examples": [[{"pointer": "/email", "code": "missing", "detail": "Field required"}]],
        }
    }


class Unauthenticated(DomainError):
    """The caller is not authenticated, or no longer."""

    code = "unauthenticated"
    title = "Not authenticated"
    detail = "Authentication is needed."


class Forbidden(DomainError):
    """The caller is authenticated but not allowed to do this."""

    code = "forbidden"
    title = "Forbidden"
    detail = "This is not allowed."


class NotFound(DomainError):
    """The resource does not exist or belongs to somebody else; the caller cannot tell which."""

    code = "not_found"
    title = "Not found"
    detail = "There is nothing here."


class Conflict(DomainError):
    """The request is valid but conflicts with the current state."""

    code = "conflict"
    title = "Conflict"
    detail = "The request conflicts with the present state."


class PreconditionFailed(DomainError):
    """The state has changed since the caller read it: `If-Match` names another entity tag."""

    code = "precondition_failed"
    title = "Precondition failed"
    detail = "This has been changed meanwhile: read it again, and repeat the change."


class TooMany(DomainError):
    """The caller made too many requests; it may try again after `retry_after` seconds (at least 1)."""

    code = "rate_limited"
    title = "Too many requests"
    detail = "Too many requests."

    def __init__(
        self, detail: str | None = None, *, retry_after: float, code: str | None = None, **members: JSON
    ) -> None:
        super().__init__(detail, code=code, **members)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """A dependency is unreachable or overloaded; the same request may succeed after `retry_after` seconds."""

    code = "unavailable"
    title = "Unavailable"
    detail = "The service is unavailable for the moment; try again."

    def __init__(
        self, detail: str | None = None, *, retry_after: float = 1, code: str | None = None, **members: JSON
    ) -> None:
        super().__init__(detail, code=code, **members)
        self.retry_after = retry_after

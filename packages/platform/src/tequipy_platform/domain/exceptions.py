"""Errors by kind: what went wrong in the domain's own words; the api layer maps a kind to a status, once."""

from typing import ClassVar

from tequipy_platform.domain.events import JSON


class DomainError(Exception):
    """The base of every error that a caller may be told of.

    `code` is what clients branch on (stable, snake_case); `detail` is one sentence for a person and names the mend;
    `members` become extension members of the problem document (RFC 9457, section 3.2). None of them may hold a secret.
    """

    code: str = "error"
    title: ClassVar[str] = "Error"
    detail: str = "The request could not be served."

    def __init__(self, detail: str | None = None, *, code: str | None = None, **members: JSON) -> None:
        self.code = code or type(self).code
        self.detail = detail or type(self).detail
        self.members = members
        super().__init__(self.detail)


class Malformed(DomainError):
    """What was sent cannot be understood at all: no change of the data's values would make it valid."""

    code = "malformed"
    title = "Malformed request"
    detail = "The request could not be understood."


class Invalid(DomainError):
    """What was sent is understood but breaks a rule."""

    code = "validation_failed"
    title = "Validation failed"
    detail = "The request breaks a rule."


class Unauthenticated(DomainError):
    """The caller is not, or no longer, known."""

    code = "unauthenticated"
    title = "Not authenticated"
    detail = "Authentication is needed."


class Forbidden(DomainError):
    """The caller is known and may not do this."""

    code = "forbidden"
    title = "Forbidden"
    detail = "This is not allowed."


class NotFound(DomainError):
    """The thing does not exist, or is somebody else's: alike for the caller."""

    code = "not_found"
    title = "Not found"
    detail = "There is nothing here."


class Conflict(DomainError):
    """The request is valid but does not fit the present state."""

    code = "conflict"
    title = "Conflict"
    detail = "The request conflicts with the present state."


class TooMany(DomainError):
    """The caller asked too often; `retry_after` says in how many seconds (at least 1) it may ask again."""

    code = "rate_limited"
    title = "Too many requests"
    detail = "Too many requests."

    def __init__(
        self, detail: str | None = None, *, retry_after: float, code: str | None = None, **members: JSON
    ) -> None:
        super().__init__(detail, code=code, **members)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """Something this service stands on is away or full; the same request may work in `retry_after` seconds."""

    code = "unavailable"
    title = "Unavailable"
    detail = "The service is unavailable for the moment; try again."

    def __init__(
        self, detail: str | None = None, *, retry_after: float = 1, code: str | None = None, **members: JSON
    ) -> None:
        super().__init__(detail, code=code, **members)
        self.retry_after = retry_after

"""Answers of the API that are no success, as exceptions."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import httpx

from tequipy_client.contract.codes import ProblemCode

Code: TypeAlias = ProblemCode | Literal["unexpected_response"]
"""Why a request was refused; the last one: the answer is no problem document of the API, but for example of a proxy."""
TYPE = "urn:tequipy:problem:"
"""The beginning of `type` in the problem documents of the API."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """A wrong part of the request; `pointer` is a JSON pointer (RFC 6901) into its body, or names a parameter."""

    pointer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457)."""

    status: int
    code: Code
    """A newer API may send codes that are not among these."""
    detail: str
    correlation_id: str | None = None
    """The id of the request in the logs of the API."""
    errors: tuple[FieldError, ...] = ()
    """The wrong fields, with code `validation_failed`."""
    reasons: tuple[str, ...] = ()
    """Why a password is too weak, with code `weak_password`."""
    retry_after: float | None = None
    """Seconds after which the request may succeed; None: the API has given none."""


class ProblemError(Exception):
    """The API has refused a request; branch on `code`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    @property
    def status(self) -> int:
        """The status of the response."""
        return self.problem.status

    @property
    def code(self) -> Code:
        """Why the request was refused; stable."""
        return self.problem.code

    def __str__(self) -> str:
        known = self.problem
        return f"{known.status} {known.code}: {known.detail} (correlation id {known.correlation_id})"


class Unauthenticated(ProblemError):
    """The request needs a login (401), or the given password or token is wrong."""


class SessionEnded(Unauthenticated):
    """The session could not be continued: log in again."""


class RateLimited(ProblemError):
    """There were too many requests or failed logins (429); `problem.retry_after` says for how long they are refused."""


class Unavailable(ProblemError):
    """The API cannot answer at present (503)."""


KINDS: dict[int, type[ProblemError]] = {401: Unauthenticated, 429: RateLimited, 503: Unavailable}


def problem_of(response: httpx.Response) -> ProblemError:
    """Return the exception for a response whose body has been read."""
    document = _document(response)
    problem = Problem(
        status=response.status_code,
        code=cast("Code", document.get("code", "unexpected_response")),
        detail=str(document.get("detail", response.reason_phrase)),
        correlation_id=document.get("correlation_id") or response.headers.get("X-Correlation-ID"),
        errors=tuple(
            FieldError(str(each.get("pointer", "")), str(each.get("code", "")), str(each.get("detail", "")))
            for each in document.get("errors", ())
        ),
        reasons=tuple(document.get("reasons", ())),
        retry_after=retry_after(response),
    )
    return KINDS.get(response.status_code, ProblemError)(problem)


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`; None if there is none, or a date, which the API does not send."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else None


def _document(response: httpx.Response) -> dict[str, Any]:
    if response.headers.get("Content-Type", "").partition(";")[0] != "application/problem+json":
        return {}
    try:
        document = response.json()
    except ValueError:  # no JSON, or not in UTF-8
        return {}
    known = isinstance(document, dict) and str(document.get("type")).startswith(TYPE)
    return document if known else {}

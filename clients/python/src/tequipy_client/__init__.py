"""A typed client of the Tequipy HTTP API."""

from tequipy_client.backoff import Backoff
from tequipy_client.problems import (
    FieldError,
    Problem,
    ProblemError,
    RateLimited,
    SessionEnded,
    Unauthenticated,
    Unavailable,
)
from tequipy_client.session import Credentials, Session

__all__ = [
    "Backoff",
    "Credentials",
    "FieldError",
    "Problem",
    "ProblemError",
    "RateLimited",
    "Session",
    "SessionEnded",
    "Unauthenticated",
    "Unavailable",
]

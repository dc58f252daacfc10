"""Rules of retries: which requests may be sent again, after which answers, and how long to wait."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httpx

from tequipy_platform.http.errors import AddressRefused, CircuitOpen, DeadlineExceeded, ResponseTooLarge

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2."""
RETRIED_STATUSES: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
FIRST_DELAY: Final = 0.2
"""Seconds; the upper bound of the wait before the first retry, doubled with each further one."""
_FINAL_ERRORS: Final = (
    AddressRefused,
    CircuitOpen,
    DeadlineExceeded,
    ResponseTooLarge,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,  # a further attempt would wait for the same full pool
    httpx.UnsupportedProtocol,
)


def may_be_repeated(request: httpx.Request) -> bool:
    """Return whether sending the request twice has the same effect as once, and its body can be sent twice."""
    idempotent = request.method in IDEMPOTENT or "Idempotency-Key" in request.headers
    return idempotent and isinstance(request.stream, httpx.ByteStream)


def is_retried(error: httpx.TransportError) -> bool:
    """Return whether a further attempt can succeed after this error."""
    return not isinstance(error, _FINAL_ERRORS)


def backoff(retries: int, jitter: Callable[[], float]) -> float:
    """Return the seconds to wait before a retry after `retries` earlier ones: full jitter, doubled each time."""
    return FIRST_DELAY * 2.0**retries * jitter()


def retry_after(response: httpx.Response, now: datetime | None = None) -> float | None:
    """Return the seconds of the Retry-After field (RFC 9110, section 10.2.3); None without one, or an invalid one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without zone is in UTC, as all dates of HTTP are.
    date = date.replace(tzinfo=date.tzinfo or UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())

"""Rules of retries: which requests may be sent again, after which answers, how long to wait, and how many."""

from collections import deque
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
BUDGET_WINDOW: Final = 10
"""Seconds whose retries the budget counts."""
FREE_RETRIES: Final = 10
BUDGET_SHARE: Final = 0.1
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
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        # A date without zone is in UTC, as all dates of HTTP are.
        date = date.replace(tzinfo=date.tzinfo or UTC)
        return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, OverflowError):
        return None


class RetryBudget:
    """Limits the retries to a host, so that they do not multiply the load of one that is failing.

    10 retries in any `BUDGET_WINDOW` are always allowed, so that a quiet host may retry; further ones while they are
    at most 10 % of the requests of that time.
    """

    def __init__(self) -> None:
        self._retries: deque[float] = deque()
        self._requests: deque[list[int]] = deque()
        """Pairs of a whole second and its requests; each request would be much memory at a high rate."""

    def count_request(self, now: float) -> None:
        """Count a request, which may be a retry."""
        second = int(now)
        if self._requests and self._requests[-1][0] == second:
            self._requests[-1][1] += 1
            return
        self._requests.append([second, 1])
        while self._requests[0][0] <= now - BUDGET_WINDOW:
            self._requests.popleft()

    def take(self, now: float) -> bool:
        """Return whether one more retry is allowed, and count it if so.

        It counts from now on, although it is sent after a wait: other calls decide about theirs meanwhile.
        """
        while self._retries and self._retries[0] <= now - BUDGET_WINDOW:
            self._retries.popleft()
        retries = len(self._retries) + 1
        requests = 1 + sum(count for second, count in self._requests if second > now - BUDGET_WINDOW)
        if retries > FREE_RETRIES and retries > BUDGET_SHARE * requests:
            return False
        self._retries.append(now)
        return True

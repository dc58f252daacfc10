"""The metrics, the span and the log line of a call."""

import asyncio
import logging
from time import perf_counter
from typing import Final

import httpx

from tequipy_observability import SpanKind, span
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.hosts import Host
from tequipy_platform.http.metrics import method_label, status_label

_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_CANCELLED: Final = "cancelled"

logger = logging.getLogger("tequipy_platform.http")


class ObservedCall:
    """Counts, logs and traces one call."""

    def __init__(self, request: httpx.Request, host: Host) -> None:
        self.attempts = 0
        self._method = request.method
        self._host = host
        self._began = perf_counter()
        self._ended = False
        self.span = span(method_label(request.method), kind=SpanKind.CLIENT)
        if self.span.recording:
            self._describe(request.url)
        host.metrics.in_progress.inc()

    def _describe(self, url: httpx.URL) -> None:
        """Set attributes (OpenTelemetry, HTTP client spans); path and query are left out, as they may hold secrets."""
        self.span.set("http.request.method", method_label(self._method))
        self.span.set("server.address", url.host)
        self.span.set("server.port", url.port or {"https": 443}.get(url.scheme, 80))
        self.span.set("tequipy.http_profile", self._host.profile)

    def record_retry(self, outcome: str) -> None:
        """Record that an attempt ended with an outcome after which there is another one."""
        self.span.event("http.attempt_failed", {"http.request.resend_count": self.attempts - 1, "error.type": outcome})

    def end(self, outcome: int | str) -> None:
        """Count, log and trace the end of the call, with its status or the kind of its error; only the first counts."""
        if self._ended:
            return
        self._ended = True
        seconds = perf_counter() - self._began
        host, metrics = self._host, self._host.metrics
        metrics.in_progress.dec()
        metrics.ended(self._method, status_label(outcome) if isinstance(outcome, int) else outcome).inc()
        metrics.duration.observe(seconds)
        if self.attempts > 1:
            metrics.retries.inc(self.attempts - 1)
            self.span.set("http.request.resend_count", self.attempts - 1)
        if isinstance(outcome, int):
            self.span.set("http.response.status_code", outcome)
        if not isinstance(outcome, int) or outcome >= _CLIENT_ERROR:
            self.span.fail(str(outcome))
        self.span.end()
        failed = outcome >= _SERVER_ERROR if isinstance(outcome, int) else outcome != _CANCELLED
        # The path is not logged, because it may hold a secret, as that of a webhook does.
        logger.log(
            logging.WARNING if failed else logging.INFO,
            "http_client_request",
            extra={
                "http_profile": host.profile,
                "http_host": host.name,
                "http_method": self._method,
                "outcome": str(outcome),
                "attempts": self.attempts,
                "duration_ms": round(seconds * 1000, 3),
            },
        )


def outcome_of(error: BaseException, call: Call) -> str:
    """Return the kind of error that a call has ended with."""
    if isinstance(error, asyncio.CancelledError):
        return "deadline_exceeded" if call.has_expired else _CANCELLED
    return kind_of(error)


def kind_of(error: BaseException) -> str:
    """Return the kind of an error in snake_case; `error` for one that is not of httpx, because callers define it."""
    if not isinstance(error, httpx.HTTPError):
        return "error"
    name = type(error).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")

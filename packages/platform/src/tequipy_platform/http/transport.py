"""The transport of all profiles: attempts, circuit breaker, retry budget, header fields, metrics and the log line."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from types import TracebackType
from typing import Final, Self

import httpx

from tequipy_observability import CORRELATION_HEADER, TRACE_HEADER, Span, SpanKind, current_context, span
from tequipy_platform.http.body import decoded
from tequipy_platform.http.circuit_breaker import Host, Outcome
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.errors import AddressRefused, CircuitOpen
from tequipy_platform.http.metrics import OTHER, HttpClientMetrics, method_label
from tequipy_platform.http.retries import RETRIED_STATUSES, backoff, is_retried, may_be_repeated, retry_after

_MAX_HOSTS: Final = 1000
"""Hosts whose breaker and budget are remembered, the last used ones."""
_LOCAL_ERRORS: Final = (
    AddressRefused,
    CircuitOpen,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)
"""Errors that say nothing about the host."""
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_TRACE_EXTENSION: Final = "tequipy_traceparent"

logger = logging.getLogger(__name__)


class ResilientTransport(httpx.AsyncBaseTransport):
    """Sends each request up to `attempts` times through another transport."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        profile: str,
        attempts: int,
        metrics: HttpClientMetrics,
        named_hosts: bool,
        jitter: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._profile = profile
        self._attempts = attempts
        self._metrics = metrics
        self._named_hosts = named_hosts
        self._jitter = jitter
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, again if it may be repeated and the attempt failed; observe it once."""
        call = Call.of(request)
        observed = _Observed(self._metrics, self._profile, request, named_host=self._named_hosts)
        _identify(request, observed.step)
        try:
            response = await self._send(request, call, observed)
        except BaseException as error:
            observed.end(_outcome_of(error, call))
            raise
        if call.streamed:
            response.stream = _StreamedBody(response, call, observed)
        else:
            observed.end(str(response.status_code))
        return response

    async def _send(self, request: httpx.Request, call: Call, observed: "_Observed") -> httpx.Response:
        host = self._host(request.url)
        limit = self._attempts if may_be_repeated(request) else 1
        while True:
            retries = observed.attempts
            observed.attempts += 1
            may_wait = observed.attempts < limit
            try:
                response = await self._attempt(request, call, host, observed)
            except httpx.TransportError as error:
                if not (may_wait and is_retried(error)):
                    raise
                delay = self._delay(call, host, backoff(retries, self._jitter))
                if delay is None:
                    raise
                observed.record_retry(_kind_of(error))
            else:
                if not (may_wait and response.status_code in RETRIED_STATUSES):
                    return response
                delay = self._delay(call, host, backoff(retries, self._jitter) + (retry_after(response) or 0.0))
                if delay is None:
                    return response
                observed.record_retry(str(response.status_code))
                await response.aclose()
            await asyncio.sleep(delay)

    def _delay(self, call: Call, host: Host, delay: float) -> float | None:
        """Return the wait before a retry, or None if it does not fit the deadline or the host's budget."""
        now = asyncio.get_running_loop().time()
        return delay if delay < call.remaining and host.may_retry(now) and not host.is_open else None

    async def _attempt(self, request: httpx.Request, call: Call, host: Host, observed: "_Observed") -> httpx.Response:
        """Send the request once; read the body too, unless the caller does so."""
        time = asyncio.get_running_loop().time
        ticket = host.admit(time(), retry=observed.attempts > 1)
        outcome = Outcome.UNKNOWN
        try:
            response = await self._transport.handle_async_request(request)
            response = decoded(response, call.max_bytes)
            if not call.streamed:
                response = await _read(response)
            outcome = Outcome.FAILED if response.status_code >= _SERVER_ERROR else Outcome.SUCCEEDED
        except httpx.TransportError as error:
            outcome = Outcome.UNKNOWN if isinstance(error, _LOCAL_ERRORS) else Outcome.FAILED
            raise
        except asyncio.CancelledError:
            outcome = Outcome.FAILED if call.expired else Outcome.UNKNOWN
            raise
        finally:
            host.record(ticket, outcome, time())
            observed.show_circuit(host)
        return response

    def _host(self, url: httpx.URL) -> Host:
        key = f"{url.scheme}://{url.netloc.decode('ascii')}"
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = Host(url.host)
            if len(self._hosts) > _MAX_HOSTS:
                self._hosts.popitem(last=False)
        self._hosts.move_to_end(key)
        return host


class _StreamedBody(httpx.AsyncByteStream):
    """The body of a streamed response, which ends at the deadline too."""

    def __init__(self, response: httpx.Response, call: Call, observed: "_Observed") -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 -- for the type checker
        self._stream = response.stream
        self._call = call
        self._observed = observed
        self._outcome = str(response.status_code)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._stream)
        try:
            while True:
                async with self._call.limited():
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        break
                yield piece
        except Exception as error:
            self._outcome = _outcome_of(error, self._call)
            raise

    async def aclose(self) -> None:
        """Release the connection."""
        self._observed.end(self._outcome)
        await self._stream.aclose()


class _Observed:
    """Counts, logs and traces one call."""

    def __init__(self, metrics: HttpClientMetrics, profile: str, request: httpx.Request, *, named_host: bool) -> None:
        self._metrics = metrics
        self._profile = profile
        self._method = request.method
        self._host = request.url.host
        self._label = metrics.host_label(self._host) if named_host else OTHER
        self._began = perf_counter()
        self._ended = False
        self.attempts = 0
        self.step = span(method_label(request.method), kind=SpanKind.CLIENT)
        if self.step.recording:
            self._describe(request.url)
        metrics.in_progress.labels(profile).inc()

    def show_circuit(self, host: Host) -> None:
        """Show the state of the host's breaker, unless the label stands for several hosts."""
        if self._label != OTHER:
            self._metrics.circuit_open.labels(self._profile, self._label).set(host.is_open)

    def _describe(self, url: httpx.URL) -> None:
        """Set attributes (OpenTelemetry, HTTP client spans); path and query are left out, as they may hold secrets."""
        self.step.set("http.request.method", method_label(self._method))
        self.step.set("server.address", url.host)
        self.step.set("server.port", url.port or {"https": 443}.get(url.scheme, 80))
        self.step.set("tequipy.http_profile", self._profile)

    def record_retry(self, outcome: str) -> None:
        """Record that an attempt ended with an outcome after which there is another one."""
        self.step.event("http.attempt_failed", {"http.request.resend_count": self.attempts - 1, "error.type": outcome})

    def end(self, outcome: str) -> None:
        """Count and log the call with the status or the kind of error that it ended with."""
        if self._ended:
            return
        self._ended = True
        seconds = perf_counter() - self._began
        metrics, profile, host = self._metrics, self._profile, self._label
        metrics.in_progress.labels(profile).dec()
        metrics.requests.labels(profile, host, method_label(self._method), outcome).inc()
        metrics.duration.labels(profile, host).observe(seconds)
        if self.attempts > 1:
            metrics.retries.labels(profile, host).inc(self.attempts - 1)
        if self.attempts > 1:
            self.step.set("http.request.resend_count", self.attempts - 1)
        if outcome.isdigit():
            self.step.set("http.response.status_code", int(outcome))
        if not outcome.isdigit() or int(outcome) >= _CLIENT_ERROR:
            self.step.fail(outcome)
        self.step.end()
        # The path is not logged, because it may hold a secret, as that of a webhook does.
        logger.log(
            logging.INFO if outcome.isdigit() and int(outcome) < _SERVER_ERROR else logging.WARNING,
            "http_client_request",
            extra={
                "http_profile": profile,
                "http_host": self._host,
                "http_method": self._method,
                "outcome": outcome,
                "attempts": self.attempts,
                "duration_ms": round(seconds * 1000, 3),
            },
        )


def _identify(request: httpx.Request, step: Span) -> None:
    """Add the correlation id and the trace of the running request or task, unless the caller has set its own."""
    context = current_context()
    if context.correlation_id is not None:
        request.headers.setdefault(CORRELATION_HEADER, context.correlation_id)
    traceparent = step.traceparent or context.traceparent
    # A redirected request has the field of the request before, which is another span.
    replaced = {None, request.extensions.get(_TRACE_EXTENSION)}
    if traceparent is not None and request.headers.get(TRACE_HEADER) in replaced:
        request.headers[TRACE_HEADER] = request.extensions[_TRACE_EXTENSION] = traceparent


async def _read(response: httpx.Response) -> httpx.Response:
    """Return the response with its whole body, and its connection released."""
    try:
        body = b"".join([piece async for piece in response.aiter_raw()])
    finally:
        await response.aclose()
    return httpx.Response(
        response.status_code, headers=response.headers, stream=httpx.ByteStream(body), extensions=response.extensions
    )


def _outcome_of(error: BaseException, call: Call) -> str:
    """Return the kind of an error in snake_case."""
    if isinstance(error, asyncio.CancelledError):
        return "deadline_exceeded" if call.expired else "cancelled"
    return _kind_of(error)


def _kind_of(error: BaseException) -> str:
    name = type(error).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")

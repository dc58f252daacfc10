"""The transport of all profiles: attempts, deadline, circuit breaker and retry budget."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from tequipy_platform.http.attempts import Attempt, judge, judge_status
from tequipy_platform.http.body import decoded
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.fields import check_request, identify, remove_private_fields
from tequipy_platform.http.hosts import Host, Hosts
from tequipy_platform.http.metrics import HttpClientMetrics
from tequipy_platform.http.observed_call import ObservedCall, kind_of, outcome_of
from tequipy_platform.http.responses import StreamedBody, read, with_body
from tequipy_platform.http.retries import RETRIED_STATUSES, backoff, is_retried, may_be_repeated, retry_after


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
        self._attempts = attempts
        self._jitter = jitter
        self._hosts = Hosts(profile, metrics, named=named_hosts)

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
        host = self._hosts.get(request.url)
        observed = ObservedCall(request, host)
        try:
            remove_private_fields(request, call.url)
            identify(request, observed.span)
            check_request(request)
            if call.remaining <= 0:
                raise call.exceeded()  # noqa: TRY301 -- it is counted as every other end
            response, attempt = await self._send(request, call, host, observed)
        except BaseException as error:
            observed.end(outcome_of(error, call))
            raise
        if call.streamed:
            return with_body(response, StreamedBody(response, call, attempt, observed))
        observed.end(response.status_code)
        return response

    async def _send(
        self, request: httpx.Request, call: Call, host: Host, observed: ObservedCall
    ) -> tuple[httpx.Response, Attempt]:
        """Return the response of the last attempt, which goes on while a streamed body is read."""
        limit = self._attempts if may_be_repeated(request) else 1
        while True:
            attempt = Attempt(host)
            observed.attempts += 1
            may_repeat = observed.attempts < limit
            try:
                response = await self._try(request, call, attempt, may_repeat=may_repeat)
            except httpx.TransportError as error:
                delay = self._delay(call, host, observed) if may_repeat and is_retried(error) else None
                if delay is None:
                    raise
                observed.record_retry(kind_of(error))
            else:
                delay = None
                if may_repeat and response.status_code in RETRIED_STATUSES:
                    delay = self._delay(call, host, observed, retry_after(response) or 0.0)
                if delay is None:
                    return response, attempt
                observed.record_retry(str(response.status_code))
            await asyncio.sleep(delay)

    def _delay(self, call: Call, host: Host, observed: ObservedCall, at_least: float = 0.0) -> float | None:
        """Return the wait before a retry, or None if it does not fit the deadline, the breaker or the budget."""
        delay = at_least + backoff(observed.attempts - 1, self._jitter)
        if delay >= call.remaining or host.breaker.is_open:
            return None
        return delay if host.budget.take(asyncio.get_running_loop().time()) else None

    async def _try(self, request: httpx.Request, call: Call, attempt: Attempt, *, may_repeat: bool) -> httpx.Response:
        """Send the request once; read the body too, unless the caller does so."""
        try:
            response = await self._transport.handle_async_request(request)
            try:
                response = decoded(response, call.max_bytes)
            except httpx.DecodingError:
                await response.aclose()
                raise
            if call.streamed and not (may_repeat and response.status_code in RETRIED_STATUSES):
                return response
            response = await read(response)
        except BaseException as error:
            attempt.end(judge(error, call))
            raise
        attempt.end(judge_status(response.status_code))
        return response

"""The responses of the clients: read at once, or piece by piece until the deadline."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import httpx

from tequipy_platform.http.attempts import Attempt, judge, judge_status
from tequipy_platform.http.deadline import Call
from tequipy_platform.http.observed_call import ObservedCall, outcome_of


class UpstreamResponse(httpx.Response):
    """httpx's response, whose errors do not contain its URL, because a URL may hold a secret."""

    def raise_for_status(self) -> Self:
        """Raise `httpx.HTTPStatusError` unless the status is 2xx."""
        try:
            super().raise_for_status()
        except httpx.HTTPStatusError as error:
            message = f"{self.request.url.host} responded {self.status_code} to {self.request.method}."
            raise httpx.HTTPStatusError(message, request=self.request, response=self) from error.__cause__
        return self


def with_body(response: httpx.Response, stream: httpx.AsyncByteStream) -> UpstreamResponse:
    """Return the response with another body."""
    return UpstreamResponse(
        response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
    )


async def read(response: httpx.Response) -> UpstreamResponse:
    """Return the response with its whole body, and its connection released."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 -- for the type checker
    try:
        body = b"".join([piece async for piece in stream])
    finally:
        await stream.aclose()
    return with_body(response, httpx.ByteStream(body))


class StreamedBody(httpx.AsyncByteStream):
    """The body of a streamed response, whose connection is released at the deadline at the latest.

    The circuit breaker judges the attempt by the end of its body. A probe is judged by its head, because the breaker
    refuses all other calls meanwhile.
    """

    def __init__(self, response: httpx.Response, call: Call, attempt: Attempt, observed: ObservedCall) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 -- for the type checker
        self._stream = response.stream
        self._call = call
        self._attempt = attempt
        self._observed = observed
        self._outcome = judge_status(response.status_code)
        self._label: int | str = response.status_code
        self._reading = False
        self._expired = False
        self._closing: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_at(call.deadline, self._expire)
        if attempt.is_probe:
            attempt.end(self._outcome)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._expired:
            raise self._call.exceeded()
        pieces = aiter(self._stream)
        try:
            while True:
                self._reading = True
                try:
                    piece = await self._call.within(anext(pieces))
                except StopAsyncIteration:
                    break
                finally:
                    self._reading = False
                yield piece
                if self._expired:
                    raise self._call.exceeded()  # noqa: TRY301 -- it ends as every other error does
        except GeneratorExit:
            raise
        except BaseException as error:
            self._outcome, self._label = judge(error, self._call), outcome_of(error, self._call)
            # At once, because the caller may forget to close the response.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Release the connection."""
        self._timer.cancel()
        self._attempt.end(self._outcome)
        self._observed.end(self._label)
        await self._stream.aclose()

    def _expire(self) -> None:
        """Release the connection of a caller that neither reads nor closes; the deadline of a read ends that itself."""
        self._expired = True
        if not self._reading:
            self._label = "deadline_exceeded"
            self._closing = asyncio.get_running_loop().create_task(self.aclose())

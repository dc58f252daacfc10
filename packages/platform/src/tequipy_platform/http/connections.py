"""The transport of httpx over a pool of httpcore2.

httpcore2 is the maintained continuation of httpx's own httpcore, whose pool loses connections when calls are cancelled.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import httpcore2
import httpx

from tequipy_platform.http.addresses import GlobalAddresses, LookedUpAddresses
from tequipy_platform.http.deadline import note_connection
from tequipy_platform.http.pool import Pool

_ERRORS: Final = {
    getattr(httpcore2, name): getattr(httpx, name)
    for name in (
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ReadError",
        "ReadTimeout",
        "RemoteProtocolError",
        "UnsupportedProtocol",
        "WriteError",
        "WriteTimeout",
    )
}
"""The errors of httpcore2, and those of httpx of the same names."""


class PooledTransport(httpx.AsyncBaseTransport):
    """Sends requests over pooled connections, to any address or to global ones alone."""

    def __init__(self, tls: ssl.SSLContext, limits: httpx.Limits, *, global_addresses: bool) -> None:
        addresses = GlobalAddresses() if global_addresses else LookedUpAddresses()
        self._pool = Pool(tls, limits, addresses)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response when its header fields have arrived."""
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        assert isinstance(request.stream, httpx.AsyncByteStream)  # noqa: S101 -- for the type checker
        note_connection(request.extensions, connected=False)
        with _errors_of_httpx():
            response = await self._pool.handle_async_request(
                httpcore2.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_ResponseStream(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


class _ResponseStream(httpx.AsyncByteStream):
    """The body of a response, with the errors of httpx."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self._closing: asyncio.Future[None] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for piece in self._response.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        # In a task, because a call that is cancelled while it gives its connection back would keep it for ever.
        self._closing = self._closing or asyncio.ensure_future(self._response.aclose())
        await asyncio.shield(self._closing)


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    try:
        yield
    except httpcore2.ProtocolError as error:
        # Without its cause, because tracebacks show causes.
        raise _ERRORS[type(error)](_without_quotation(str(error))) from None
    except tuple(_ERRORS) as error:
        raise _ERRORS[type(error)](str(error)) from error


def _without_quotation(text: str) -> str:
    """Return a text without what h11 or h2 quote of a response, such as a cookie in a malformed field."""
    return text.partition(": bytearray(")[0].partition(", additional_data:")[0]

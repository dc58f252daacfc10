"""A pool of connections, on which a call that ends early does no harm to the others.

httpcore2 ends no HTTP/2 stream when a call is cancelled, so that a connection would be used up after 100 of them; it
would go on using one whose server has stopped answering; and the first call that has waited too long would end all
others on its connection.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import h2.exceptions
import httpcore2
import httpx

from tequipy_platform.http.deadline import note_connection
from tequipy_platform.http.goaway import REFUSED_STREAM, GoawayFilter
from tequipy_platform.http.network import HTTP2, ObservedNetwork, StreamReadTimeout

_MAX_ORIGINS: Final = 1000
_RESENT: Final = "tequipy_resent"
_MAX_RESENT: Final = 2
"""How often a request that a server has not processed is sent again at once."""


class Pool(httpcore2.AsyncConnectionPool):
    """The pool of httpcore2 with connections that are not used again after a request on them ended early."""

    def __init__(self, tls: ssl.SSLContext, limits: httpx.Limits, network: httpcore2.AsyncNetworkBackend) -> None:
        super().__init__(
            max_connections=limits.max_connections, max_keepalive_connections=limits.max_keepalive_connections
        )
        self._tls = tls
        self._idle_seconds = limits.keepalive_expiry
        self._network = network
        self._http1_origins: set[str] = set()

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """Return a connection that opens with its first request."""
        return _Connection(self, origin, self._tls, self._idle_seconds, ObservedNetwork(self._network))

    def without_http2(self, origin: str) -> bool:
        """Return whether an origin is known to have no HTTP/2."""
        return origin in self._http1_origins

    def learn(self, origin: str, protocol: str | None) -> None:
        """Remember whether an origin has HTTP/2, as ALPN said."""
        if protocol == HTTP2:
            self._http1_origins.discard(origin)
        elif len(self._http1_origins) < _MAX_ORIGINS:
            self._http1_origins.add(origin)


class _Connection(httpcore2.AsyncHTTPConnection):
    """A connection that gets no further requests after one on it ended early; it closes after the last of the others.

    HTTP/1.1 closes it in this case anyway.
    """

    def __init__(
        self,
        pool: Pool,
        origin: httpcore2.Origin,
        tls: ssl.SSLContext,
        idle_seconds: float | None,
        network: "ObservedNetwork",
    ) -> None:
        super().__init__(origin, tls, keepalive_expiry=idle_seconds, http1=True, http2=True, network_backend=network)
        self._pool = pool
        self._name = str(origin)
        self._network = network
        self._requests = 0
        self._retired = False
        self._goaway = False
        network.goaway = GoawayFilter(self._leave)

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request; raises `ConnectionNotAvailable` if it has to be sent on another connection."""
        if self._retired:
            raise httpcore2.ConnectionNotAvailable
        self._requests += 1
        note_connection(request.extensions, connected=True)
        try:
            response = await super().handle_async_request(request)
        except httpcore2.ConnectionNotAvailable:
            self._requests -= 1
            note_connection(request.extensions, connected=False)
            self._learn()
            raise
        except BaseException as error:
            # After an error of the server, such as RST_STREAM, both sides know that the stream has ended.
            await self.end(early=not isinstance(error, httpcore2.RemoteProtocolError))
            if isinstance(error, StreamReadTimeout):
                raise httpcore2.ReadTimeout from error
            # httpcore2 leaves errors of h2 as they are only before it sends a request, when the call that opens the
            # connection was cancelled.
            is_unsent = isinstance(error, h2.exceptions.ProtocolError)
            if is_unsent or (self._goaway and _may_be_resent(request, error)):
                note_connection(request.extensions, connected=False)
                raise httpcore2.ConnectionNotAvailable from error
            if isinstance(error, httpcore2.LocalProtocolError) and self._has_http2():
                # h2 raises the same errors for what it receives as for what it sends, and our requests were checked.
                raise httpcore2.RemoteProtocolError("The server has sent an invalid frame.") from error
            raise
        self._learn()
        return httpcore2.Response(
            response.status,
            headers=response.headers,
            content=_Body(response, self),
            extensions=response.extensions,
        )

    async def end(self, *, early: bool) -> None:
        """End a request."""
        self._requests -= 1
        self._retired = self._retired or early or self._has_more()
        if self._retired and self.is_idle():
            await self.aclose()

    def is_idle(self) -> bool:
        """Return whether there is no request; httpcore2 does not count those that wait to be sent."""
        return self._requests == 0 and super().is_idle()

    def _leave(self, last_stream: int) -> list[int]:
        """Send no further requests, because the server answers none after `last_stream`; return the open ones."""
        self._retired = self._goaway = True
        # httpcore2 has no public way to tell which are open; without the attributes they end with the connection.
        streams = getattr(getattr(self._connection, "_h2_state", None), "streams", {})
        return [number for number, stream in streams.items() if number > last_stream and not stream.closed]

    def _has_more(self) -> bool:
        """Return whether the server has sent more than the response, which would become the next one.

        httpcore2 has no public way to tell; without the attributes all connections are closed.
        """
        if self._has_http2():
            return False  # its frames belong to their stream
        parser = getattr(self._connection, "_h11_state", None)
        return parser is None or parser.trailing_data[0] != b""

    def _has_http2(self) -> bool:
        return self._network.stream is not None and self._network.stream.protocol == HTTP2

    def _learn(self) -> None:
        if self._network.stream is not None and self._network.stream.has_tls:
            self._pool.learn(self._name, self._network.stream.protocol)

    def is_available(self) -> bool:
        """Return whether the connection can be used for another request."""
        opening = self._network.stream is None or not self._network.stream.has_tls
        if self._retired or (opening and self._pool.without_http2(self._name)):
            # Calls that wait for a connection with HTTP/1.1 would open theirs one after the other.
            return False
        return super().is_available()

    def has_expired(self) -> bool:
        """Return whether the connection, which is idle, should be closed."""
        stream = self._network.stream
        return super().has_expired() or (self.is_idle() and stream is not None and stream.has_peer_left())


def _may_be_resent(request: httpcore2.Request, error: BaseException) -> bool:
    """Return whether the server has said that it has not processed a request, and the body can be sent twice."""
    reset = error.args[0] if isinstance(error, httpcore2.RemoteProtocolError) and error.args else None
    if getattr(reset, "error_code", None) != REFUSED_STREAM or not isinstance(request.stream, httpx.ByteStream):
        return False
    request.extensions[_RESENT] = request.extensions.get(_RESENT, 0) + 1
    return bool(request.extensions[_RESENT] <= _MAX_RESENT)


class _Body:
    """The body of a response, which tells the connection whether it was read to its end."""

    def __init__(self, response: httpcore2.Response, connection: _Connection) -> None:
        self._response = response
        self._connection = connection
        self._complete = False

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._response.aiter_stream()) as pieces:
                async for piece in pieces:
                    yield piece
        except StreamReadTimeout as error:
            raise httpcore2.ReadTimeout from error
        except h2.exceptions.ProtocolError as error:
            raise httpcore2.RemoteProtocolError(str(error)) from error
        self._complete = True

    async def aclose(self) -> None:
        await self._response.aclose()
        await self._connection.end(early=not self._complete)

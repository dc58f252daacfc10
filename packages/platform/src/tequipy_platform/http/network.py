"""The network of a connection: what ALPN has chosen, GOAWAY, and timeouts that end one call alone."""

import asyncio
import select
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore2

from tequipy_platform.http.goaway import GoawayFilter

HTTP2: Final = "h2"
"""The name of HTTP/2 in ALPN (RFC 9113, section 3.2)."""
_READ_BYTES: Final = 16 * 1024
"""At most so many bytes are parsed before other tasks run: 64 KiB of the smallest frames take 0.1 s."""


class StreamReadTimeout(BaseException):
    """A call has waited too long for its response on a connection with HTTP/2.

    Not an `Exception`, for httpcore2 would end all other calls on the connection.
    """


class ObservedNetwork(httpcore2.AsyncNetworkBackend):
    """Opens one connection over another backend."""

    def __init__(self, network: httpcore2.AsyncNetworkBackend) -> None:
        self._network = network
        self.stream: ObservedStream | None = None
        self.goaway: GoawayFilter | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the signature of httpcore2
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Open the connection; raises the errors of the other backend."""
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        self.stream = ObservedStream(stream, self.goaway)
        return self.stream


class ObservedStream(httpcore2.AsyncNetworkStream):
    """The stream of a connection, first without and then with TLS."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, goaway: GoawayFilter | None) -> None:
        self._stream = stream
        self._goaway = goaway
        self._writing: asyncio.Future[None] | None = None
        self.has_tls = False
        self.protocol: str | None = None
        """What ALPN has chosen (RFC 7301)."""

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- the signature of httpcore2
    ) -> httpcore2.AsyncNetworkStream:
        """Begin TLS; what ALPN has chosen is `protocol` afterwards."""
        try:
            self._stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self.aclose()  # httpcore2 leaves it open when the call is cancelled
            raise
        self.has_tls = True
        self.protocol = self._stream.get_extra_info("ssl_object").selected_alpn_protocol()
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Return the next bytes; raises `StreamReadTimeout` with HTTP/2, and else `httpcore2.ReadTimeout`."""
        try:
            data = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
            if self.protocol != HTTP2 or self._goaway is None:
                return data
            # Nothing would mean the end of the connection.
            while data and not (passed := self._goaway.feed(data)):
                data = await self._stream.read(_READ_BYTES, timeout)
        except httpcore2.ReadTimeout as error:
            if self.protocol == HTTP2:
                raise StreamReadTimeout from error
            raise
        return passed if data else b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Write bytes; with HTTP/2 all of them, even if the call is cancelled meanwhile."""
        if self.protocol != HTTP2:
            await self._stream.write(buffer, timeout)
            return
        # In a task, because a frame that is lost when its call is cancelled would end all others on the connection.
        self._writing = asyncio.ensure_future(self._write_after(self._writing, buffer, timeout))
        self._writing.add_done_callback(lambda writing: writing.cancelled() or writing.exception())
        await asyncio.shield(self._writing)

    async def _write_after(
        self,
        previous: asyncio.Future[None] | None,
        buffer: bytes,
        timeout: float | None,  # noqa: ASYNC109
    ) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait({previous})
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 -- the signature of httpcore2
        """Return what httpcore2 asks about the connection, such as its socket."""
        return self._stream.get_extra_info(info)

    def has_peer_left(self) -> bool:
        """Return whether the other side has closed the connection."""
        socket = self.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        # Not whether there is anything to read, such as a PING.
        poll.register(socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

"""The connection pool of a client, which loses no connection when a call is cancelled."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore
from httpcore._async.connection_pool import PoolByteStream
from httpcore._async.interfaces import AsyncConnectionInterface


class ConnectionPool(httpcore.AsyncConnectionPool):
    """httpcore's pool, which also closes the connections that no request uses any more.

    A call that is cancelled (by its caller or at its deadline) at certain moments leaves a connection in httpcore 1.0.9
    that is neither idle nor closed, or a request that has not ended. Each takes a place of the pool for ever
    (https://github.com/encode/httpcore/issues/1093).
    """

    def __init__(self, network_backend: httpcore.AsyncNetworkBackend | None = None, **options: Any) -> None:  # noqa: ANN401 -- those of httpcore
        super().__init__(network_backend=_Network(network_backend or httpcore.AnyIOBackend()), **options)
        self._closing: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; the pool keeps its connection until the body of the response is closed."""
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, PoolByteStream)  # noqa: S101 -- for the type checker
        response.stream = _Body(response.stream, self)
        return response

    def end(self, stream: PoolByteStream) -> None:
        """Forget the request of a response whose closing was interrupted."""
        if stream._pool_request in self._requests:  # noqa: SLF001 -- httpcore has no public way
            self._requests.remove(stream._pool_request)  # noqa: SLF001
            self._close_in_background(self._assign_requests_to_connections())

    async def aclose(self) -> None:
        """Close all connections."""
        await super().aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _assign_requests_to_connections(self) -> list[AsyncConnectionInterface]:
        used = {id(request.connection) for request in self._requests}
        unused = [connection for connection in self._connections if id(connection) not in used]
        abandoned = [connection for connection in unused if not (connection.is_idle() or connection.is_closed())]
        for connection in abandoned:
            self._connections.remove(connection)
        return abandoned + super()._assign_requests_to_connections()

    async def _close_connections(self, closing: list[AsyncConnectionInterface]) -> None:
        # In a task, because a call that is cancelled while it closes connections would leave them open.
        self._close_in_background(closing)

    def _close_in_background(self, closing: list[AsyncConnectionInterface]) -> None:
        for connection in closing:
            task = asyncio.create_task(connection.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class _Body:
    """The body of a response, whose request ends with it even if closing it is interrupted."""

    def __init__(self, stream: PoolByteStream, pool: ConnectionPool) -> None:
        self._stream = stream
        self._pool = pool

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        """Return the connection to the pool."""
        try:
            await self._stream.aclose()
        finally:
            self._pool.end(self._stream)


class _Network(httpcore.AsyncNetworkBackend):
    """Another backend, whose connections are closed if TLS is interrupted."""

    def __init__(self, network: httpcore.AsyncNetworkBackend) -> None:
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a port."""
        return _Stream(await self._network.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is closed if TLS is interrupted; httpcore does so after an error, not after a cancellation."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 -- as above
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as above
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 -- the signature of httpcore
        return self._stream.get_extra_info(info)

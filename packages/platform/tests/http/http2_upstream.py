"""An upstream that speaks HTTP/2 over TLS and does what a test tells it to do."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

Handler = Callable[["Http2Connection", int, str], Awaitable[None]]
"""Called with the connection, the stream and the path of each request, when the request has ended."""


class Http2Connection:
    """One connection of a client."""

    def __init__(self, upstream: "Http2Upstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream = upstream
        self._reader = reader
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.requests: list[str] = []
        """The paths of its requests."""
        self.resets: list[int] = []
        """The streams that the client has reset."""
        self.closed = asyncio.Event()
        self._paths: dict[int, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Read and answer frames until either side closes the connection."""
        self.h2.initiate_connection()
        self.send()
        try:
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._handle(event)
                self.send()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            self.writer.transport.abort()
            self.closed.set()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            assert event.stream_id is not None
            assert event.headers is not None
            headers = {bytes(name): bytes(value) for name, value in event.headers}
            self._paths[event.stream_id] = headers[b":path"].decode()
            self.requests.append(self._paths[event.stream_id])
        elif isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            assert event.flow_controlled_length is not None
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id is not None
            work = self._upstream.handler(self, event.stream_id, self._paths[event.stream_id])
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(event, h2.events.StreamReset):
            assert event.stream_id is not None
            self.resets.append(event.stream_id)

    def send(self) -> None:
        """Send the frames that are queued."""
        if data := self.h2.data_to_send():
            with suppress(OSError):
                self.writer.write(data)

    def answer(self, stream: int, *, status: int = 200, body: bytes = b"ok", end: bool = True) -> None:
        """Answer a request; without `end` the body goes on."""
        with suppress(h2.exceptions.ProtocolError):
            self.h2.send_headers(stream, [(":status", str(status))])
            self.h2.send_data(stream, body, end_stream=end)
            self.send()

    def reset(self, stream: int, code: h2.errors.ErrorCodes) -> None:
        """Send RST_STREAM."""
        self.h2.reset_stream(stream, code)
        self.send()

    def goaway(self, last_stream: int, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        """Send GOAWAY: streams after `last_stream` were not and will not be processed."""
        # Not `close_connection`, because the streams before it are still answered.
        frame = (0).to_bytes(4) + last_stream.to_bytes(4) + int(code).to_bytes(4)
        self.writer.write((8).to_bytes(3) + b"\x07\x00" + frame)


class Http2Upstream:
    """Listens on a port of 127.0.0.1."""

    def __init__(self, certificate: Path, handler: Handler) -> None:
        self.handler = handler
        self.connections: list[Http2Connection] = []
        self.port = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        self._tls.set_alpn_protocols(["h2"])

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """The paths of all requests, by connection."""
        return [path for connection in self.connections for path in connection.requests]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Http2Connection(self, reader, writer)
        self.connections.append(connection)
        with suppress(asyncio.CancelledError):
            await connection.run()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Http2Upstream"]:
        """Listen while the block lasts."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self.connections:
                connection.writer.transport.abort()

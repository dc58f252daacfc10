"""Network components between clients and servers: a link that can be slow, and a balancer that polls readiness."""

import asyncio
import ssl
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from anyio.from_thread import start_blocking_portal

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving.listener import Listener

_CHUNK_BYTES = 65536
_POLL_SECONDS = 0.2

T = TypeVar("T")


@contextmanager
def in_background(resource: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an async context manager on an event loop in a separate thread while the block lasts."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(resource) as entered:
        yield entered


class _Forwarder(Listener):
    """Listens on a port of 127.0.0.1 and forwards each connection to another; an async context manager."""

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(free_port())
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self.delay = 0.0
        """Seconds by which all data is delayed in both directions; may be changed at any time."""

    @abstractmethod
    def _choose(self) -> int | None:
        """Return the target port of a new connection, or None to refuse it."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._choose()
        try:
            if self._tls is not None:
                await writer.start_tls(self._tls)
            if port is not None:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                async with _closed(far_writer), asyncio.TaskGroup() as pipes:
                    pipes.create_task(self._pipe(reader, far_writer))
                    pipes.create_task(self._pipe(far_reader, writer))
        except* OSError:
            pass  # one end has disconnected, so the other is closed too
        finally:
            if self._tls is None:
                writer.close()
            else:
                # Closing TLS waits for the client, and after a second `close` its transport ignores `abort`.
                writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        writer.close()


class Link(_Forwarder):
    """An address that forwards to one server, can be slow, and can be switched off.

    With a certificate (a PEM file with its key) clients must use TLS; the server gets plain text.
    """

    def __init__(self, target: int, *, certificate: Path | None = None) -> None:
        super().__init__(certificate)
        self.target: int | None = target
        """The server's port; None: new connections are closed at once."""

    def _choose(self) -> int | None:
        return self.target


class Balancer(_Forwarder):
    """Forwards each connection to the next backend whose last readiness was 200, like a Kubernetes service.

    It retries nothing: a request that a backend drops has failed.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = ports
        self._turns = count()
        self._poller: asyncio.Task[None] | None = None
        self.ready: tuple[int, ...] = ()
        """The ports of the backends that currently get connections."""

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def _choose(self) -> int | None:
        return self.ready[next(self._turns) % len(self.ready)] if self.ready else None

    async def __aenter__(self) -> Self:
        self._poller = asyncio.create_task(self._poll())
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait({self._poller})
        await super().__aexit__(kind, error, traceback)

    async def _poll(self) -> None:
        async with httpx.AsyncClient(timeout=3) as client:
            while True:
                answers = await asyncio.gather(*(self._is_ready(client, port) for port in self._ports))
                self.ready = tuple(port for port, ready in zip(self._ports, answers, strict=True) if ready)
                await asyncio.sleep(_POLL_SECONDS)

    @staticmethod
    async def _is_ready(client: httpx.AsyncClient, port: int) -> bool:
        with suppress(httpx.TransportError):
            answer = await client.get(f"http://127.0.0.1:{port}/api/v1/readiness")
            return answer.status_code == httpx.codes.OK
        return False


@asynccontextmanager
async def _closed(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()

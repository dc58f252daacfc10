"""The base class of servers that tests run within their own event loop."""

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from types import TracebackType
from typing import Self


class Listener(ABC):
    """Listens on a port of 127.0.0.1 and serves each connection in a task of its own; an async context manager.

    Leaving the context closes every connection, also one whose task has not begun yet. `connections` are the tasks.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        """0: any free port, which is known once the context is entered."""
        self.connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection and close it."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        connections = list(self.connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted connection is closed in the next turn of the event loop

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self.connections.add(task)
        task.add_done_callback(partial(self._forget, writer))

    def _forget(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self.connections.discard(task)
        if task.cancelled():
            # A task that is cancelled before it begins runs no `finally`; closing would wait for the client.
            writer.transport.abort()

"""The base class of servers that tests run within their own event loop."""

import asyncio
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self


class Listener(ABC):
    """Listens on a port of 127.0.0.1 and serves each connection in a task of its own; an async context manager.

    Leaving the context closes every connection, also one whose task has not begun yet. `connections` are the tasks.
    It accepts connections itself, because a server of asyncio loses those that it has just accepted when it closes.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        """0: any free port, which is known once the context is entered."""
        self.connections: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._opening: set[asyncio.Task[None]] = set()
        """The tasks that make streams of accepted connections."""

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection and close it."""

    async def __aenter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._open_all, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        await asyncio.gather(*self._opening, return_exceptions=True)  # which begins their tasks
        connections = list(self.connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted connection is closed in the next turn of the event loop

    def _open_all(self, listening: socket.socket) -> None:
        """Accept the waiting connections."""
        loop = asyncio.get_running_loop()
        with suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                accepted, _ = listening.accept()
                protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accept)
                opening = loop.create_task(self._open(protocol, accepted))
                self._opening.add(opening)
                opening.add_done_callback(self._opening.discard)

    async def _open(self, protocol: asyncio.StreamReaderProtocol, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self.connections.add(task)
        task.add_done_callback(partial(self._forget, writer))

    def _forget(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self.connections.discard(task)
        if task.cancelled():
            # A task that is cancelled before it begins runs no `finally`; closing would wait for the client.
            writer.transport.abort()

"""Writes of one turn of the event loop leave together: the head and the body of a response in one system call."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_MAX_HELD: Final = 64 * 1024
"""Bytes that a connection holds at most; more is passed on at once, so that the transport can pause the writer."""


class Turn:
    """The connections that have written in this turn of the event loop; the next turn begins with their writes."""

    def __init__(self) -> None:
        self._waiting: list[TurnTransport] = []

    def join(self, transport: "TurnTransport", loop: asyncio.AbstractEventLoop) -> None:
        """Flush a connection at the beginning of the next turn."""
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(transport)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.flush()


class TurnTransport(asyncio.Transport):
    """A transport that holds what is written until the end of the turn.

    uvicorn writes head and body of a response separately, and uvloop passes each write to the operating system at once.
    """

    def __init__(self, transport: asyncio.Transport, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._turn = turn
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the end of the turn, or at once if much is held."""
        if not self._held:
            self._turn.join(self, self._loop)
        self._held.append(bytes(data))
        self._size += len(data)
        if self._size > _MAX_HELD:
            self.flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write several pieces."""
        for data in list_of_data:
            self.write(data)

    def flush(self) -> None:
        """Pass on what is held."""
        held = self._held
        if held:
            self._held, self._size = [], 0
            if not self._transport.is_closing():
                self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def close(self) -> None:
        """Close after everything written before has been sent."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Close the sending direction after everything written before has been sent."""
        self.flush()
        self._transport.write_eof()

    def abort(self) -> None:
        """Close at once, and discard what is held."""
        self._held, self._size = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        """Return whether the transport is closed or closing."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Pause reading."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 -- as asyncio has it
        """Return information about the transport."""
        return self._transport.get_extra_info(name, default)

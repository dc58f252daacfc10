"""Lookups of host names by the resolver of the system, which blocks and cannot be cancelled."""

import asyncio
import socket
from contextlib import suppress
from threading import Thread
from typing import Any, Final

import httpcore2

_LOOKUPS: Final = 8
"""Names that are looked up at the same time."""


class Lookups:
    """Looks names up in threads of its own, because a name server that does not answer would block those of others.

    They are daemon threads, because the end of the process would wait for a lookup that hangs.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_LOOKUPS)

    async def look_up(self, host: str, port: int, deadline: float | None) -> list[str]:
        """Return the addresses of a host, in the order of the resolver; each form of an address is one of them.

        `deadline` is a time of the event loop. Raises `httpcore2.ConnectError`, `httpcore2.ConnectTimeout`, or
        `httpcore2.PoolTimeout` if the lookup has not begun, which says nothing about the host.
        """
        has_begun = False
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
                has_begun = True
                found = await self._start(host, port)
        except TimeoutError as error:
            if not has_begun:
                raise httpcore2.PoolTimeout("The lookup of the host has not begun in time.") from error
            raise httpcore2.ConnectTimeout("The lookup of the host has not ended in time.") from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError("The host cannot be looked up.") from error
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    def _start(self, host: str, port: int) -> asyncio.Future[list[Any]]:
        """Start a thread, and return what it will have found; its place is free when it has ended."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def end(result: list[Any], error: Exception | None) -> None:
            self._free.release()
            if found.done():
                return
            if error is None:
                found.set_result(result)
            else:
                found.set_exception(error)

        def run() -> None:
            result: list[Any] = []
            error: Exception | None = None
            try:
                result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except Exception as failure:  # noqa: BLE001 -- raised to the caller
                error = failure
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(end, result, error)

        try:
            Thread(target=run, name="http-lookup", daemon=True).start()
        except RuntimeError as error:  # the process may have no more threads
            end([], OSError(str(error)))
        return found

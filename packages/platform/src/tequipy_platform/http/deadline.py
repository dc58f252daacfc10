"""The deadline of a call, which spans connecting, all attempts, sending and reading the body."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

import httpx

from tequipy_platform.http.errors import DeadlineExceeded

_EXTENSION: Final = "tequipy_call"

T = TypeVar("T")


class Call:
    """What the transport has to know about a call; redirected requests share the one of the first request.

    `deadline` is a time of the event loop. `streamed` is whether the caller reads the body piece by piece, instead of
    receiving it with the response. `max_bytes` limits the body, after decompression.
    """

    __slots__ = ("_request", "_timeout", "connected", "deadline", "max_bytes", "streamed")

    def __init__(self, request: httpx.Request, *, deadline: float, streamed: bool, max_bytes: int) -> None:
        self.deadline = deadline
        self.streamed = streamed
        self.max_bytes = max_bytes
        self.connected = True
        """False while the call waits for a connection, which says nothing about the host."""
        self._request = request
        self._timeout: asyncio.Timeout | None = None
        # A new dictionary, because the caller may use its own one for several calls.
        request.extensions = {**request.extensions, _EXTENSION: self}

    @staticmethod
    def of(request: httpx.Request) -> "Call":
        """Return the call that a request belongs to."""
        call: Call = request.extensions[_EXTENSION]
        return call

    @property
    def url(self) -> httpx.URL:
        """The URL of the first request."""
        return self._request.url

    @property
    def remaining(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()

    @property
    def has_expired(self) -> bool:
        """Whether the running block of `within` is cancelled because of the deadline.

        The clock cannot tell, because the timers of an event loop (those of uvloop: half a millisecond) can be early.
        """
        return self._timeout is not None and self._timeout.expired()

    def exceeded(self) -> DeadlineExceeded:
        """Return the error of a call that has reached its deadline."""
        return DeadlineExceeded("The call has not ended within its total time.", request=self._request)

    async def within(self, awaitable: Awaitable[T]) -> T:
        """Await something until the deadline; raises `DeadlineExceeded`."""
        outer, timeout = self._timeout, asyncio.timeout_at(self.deadline)
        self._timeout = timeout
        try:
            async with timeout:
                return await awaitable
        except TimeoutError as error:
            if not timeout.expired():
                raise  # of the caller's own, such as one of the body that it sends
            raise self.exceeded() from error
        finally:
            self._timeout = outer


def note_connection(extensions: Mapping[str, Any], *, connected: bool) -> None:
    """Note whether the call of a request, of which these are the extensions, has a connection or waits for one."""
    call = extensions.get(_EXTENSION)
    if call is not None:
        call.connected = connected

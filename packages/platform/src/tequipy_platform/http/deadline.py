"""The deadline of a call, which spans connecting, all attempts, sending and reading the body."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from tequipy_platform.http.errors import DeadlineExceeded

_EXTENSION: Final = "tequipy_call"


@dataclass(frozen=True, slots=True)
class Call:
    """What the transport has to know about a call; redirected requests share the one of the first request."""

    deadline: float
    """The time of the event loop at which the call ends."""
    streamed: bool
    """Whether the caller reads the body piece by piece, instead of receiving it with the response."""
    max_bytes: int
    """The longest body, after decompression."""

    @property
    def remaining(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.remaining <= 0

    def attach(self, request: httpx.Request) -> None:
        """Let `request`, and the requests that it is redirected to, belong to this call."""
        request.extensions[_EXTENSION] = self

    @staticmethod
    def of(request: httpx.Request) -> "Call":
        """Return the call that a request belongs to."""
        call: Call = request.extensions[_EXTENSION]
        return call

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """End the block at the deadline; raises `DeadlineExceeded`."""
        timeout = asyncio.timeout_at(self.deadline)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise  # of the caller's own, such as one of the body that it sends
            raise DeadlineExceeded("The call has not ended within its total time.") from error

"""One request and its response on a connection of `tequipy_api.protocol`."""

import asyncio
from collections.abc import Callable
from typing import cast

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tequipy_platform import DomainError


class Flow(FlowControl):
    """uvicorn's flow control, extended: while `held` is set, reading stays paused."""

    held = False

    def resume_reading(self) -> None:
        """Resume reading, unless requests that were read already are still queued."""
        if not self.held:
            super().resume_reading()


class LastResponseTransport:
    """The transport of the last response on a connection: `close` calls `linger` instead."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = linger


class Cycle(RequestResponseCycle):
    """A request and its response; an error of the body is raised in the app, which responds to it as usual."""

    failure: DomainError | None = None

    def fail(self, error: DomainError, linger: Callable[[], None]) -> None:
        """End the body with an error; the response is the last one of its connection."""
        self.failure = error
        self.keep_alive = False
        self.transport = cast("asyncio.Transport", LastResponseTransport(self.transport, linger))
        self.waiting_for_100_continue = False
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next part of the body, or raise the error that ended it."""
        self._raise_failure()
        message = await super().receive()
        self._raise_failure()
        return message

    def _raise_failure(self) -> None:
        if self.failure is not None and not self.response_complete:
            raise self.failure

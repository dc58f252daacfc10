"""One request and its answer on a connection of `tequipy_api.protocol`."""

import asyncio
from collections.abc import Callable
from typing import cast

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tequipy_platform import DomainError


class Flow(FlowControl):
    """uvicorn's flow control; while it is `held`, reading stays paused whatever a request asks for."""

    held = False

    def resume_reading(self) -> None:
        """Read again, unless requests that were read already still wait for their turn."""
        if not self.held:
            super().resume_reading()


class LastAnswer:
    """The transport of an answer that is the last on its connection, which is left to `linger` instead of closed."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = linger


class Cycle(RequestResponseCycle):
    """A request and its answer; a body that fails raises in the app, which answers as it answers any error."""

    failure: DomainError | None = None

    def fail(self, error: DomainError, linger: Callable[[], None]) -> None:
        """End the body with an error; the answer is the last one of its connection."""
        self.failure = error
        self.keep_alive = False
        self.transport = cast("asyncio.Transport", LastAnswer(self.transport, linger))
        self.waiting_for_100_continue = False
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next piece of the body; raises what it failed with."""
        self._raise_failure()
        message = await super().receive()
        self._raise_failure()
        return message

    def _raise_failure(self) -> None:
        if self.failure is not None and not self.response_complete:
            raise self.failure

"""Processes that run one step at a time, on an event loop whose time passes at once."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from enum import Enum, auto
from typing import Any, TypeVar

R = TypeVar("R")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that jumps to its next timer, and stops when no task can go on."""

    virtual_time = 0.0

    def __init__(self) -> None:
        super().__init__(_IdleSelector(self))

    def time(self) -> float:
        return self.virtual_time


class _IdleSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            self._loop.stop()
        elif timeout > 0:
            self._loop.virtual_time += timeout
        return []


class Way(Enum):
    """How a step of a process ends."""

    GO = auto()
    KILL_BEFORE = auto()
    """The process dies before the step has an effect."""
    KILL_AFTER = auto()
    """The process dies after the effect, before it knows."""
    FAIL_BEFORE = auto()
    """The server is unreachable."""
    FAIL_AFTER = auto()
    """The step has its effect, but the reply is lost."""


LOCAL = {"wait", "receive", "acknowledge"}
"""Steps that need no connection of their own, so that they cannot fail."""


class Killed(BaseException):
    """Ends the coroutines of a killed process."""


class Outage(Exception):
    """A server is unreachable, or its reply was lost."""


class Process:
    """A process, which waits before each of its steps until the history lets it take the step."""

    def __init__(self, name: str, loop: VirtualLoop, *, is_reachable: Callable[[str], bool]) -> None:
        self.name = name
        self.alive = True
        self.waits_for: str | None = None
        """The step that comes next; None while it waits for a lock."""
        self._loop = loop
        self._is_reachable = is_reachable
        self._next: asyncio.Future[Way] | None = None
        self._main: asyncio.Task[None] | None = None

    def start(self, main: Coroutine[Any, Any, None]) -> None:
        """Run the process up to its first step."""
        context = copy_context()
        context.run(CURRENT.set, self)
        self._main = self._loop.create_task(main, context=context)
        self._loop.run_forever()

    def resume(self, way: Way = Way.GO) -> None:
        """Take the next step, and run up to the one after it."""
        if self._next is not None and not self._next.done():
            self._next.set_result(way)
            self._loop.run_forever()

    async def turn(self, step: str) -> Way:
        """Wait for the turn of a step; raise if the process dies, or the server is unreachable, before it."""
        if not self.alive:
            raise Killed
        self._next, self.waits_for = self._loop.create_future(), step
        try:
            way = await self._next
        finally:
            self._next = self.waits_for = None
        if way is Way.KILL_BEFORE:
            self.die()
        if step in LOCAL:
            return way
        if way is Way.FAIL_BEFORE or not self._is_reachable(step):
            raise Outage(f"no connection for {step}")
        return way

    def end_turn(self, step: str, way: Way) -> None:
        """Raise if the process dies, or the reply is lost, after a step."""
        if way is Way.KILL_AFTER:
            self.die()
        if way is Way.FAIL_AFTER:
            raise Outage(f"no reply to {step}")

    async def step(self, step: str, effect: Callable[[], Awaitable[R]]) -> R:
        """Take a step."""
        way = await self.turn(step)
        result = await effect()
        self.end_turn(step, way)
        return result

    def die(self) -> None:
        """Die like by `kill -9`: no later step has an effect."""
        self.alive = False
        raise Killed

    def end(self) -> None:
        """End an idle process, or the remains of a dead one; raise what ended it before."""
        self.alive = False
        if self._next is not None and not self._next.done():
            self._next.set_exception(Killed())
        elif self._main is not None:
            self._main.cancel()
        self._loop.run_forever()
        if self._main is not None and self._main.done() and not self._main.cancelled():
            error = self._main.exception()
            if error is not None and not isinstance(error, Killed):
                raise error


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process whose code is running."""

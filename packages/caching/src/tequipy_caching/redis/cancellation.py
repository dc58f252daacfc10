"""Reliable cancellation of background tasks and of requests, because redis-py may swallow a cancellation."""

import asyncio
from types import TracebackType
from typing import Self


async def cancel_and_wait(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait until it has ended.

    Repeats the cancellation every 0.1 s: redis-py 8.1 swallows about one in fifty that arrive while it connects.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


class Cancellation:
    """Raises `CancelledError` if a cancellation of the running task was swallowed in this context.

    redis-py sends commands by `asyncio.wait_for`. Before Python 3.12, that returns the result instead of raising
    `CancelledError` if the result is ready at that moment. `asyncio.timeout` cancels in the same way.
    """

    __slots__ = ("_before", "_task")

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not asyncio.CancelledError:
            self.check()

    def check(self) -> None:
        """Raise the swallowed `CancelledError` now, before the caller does anything else."""
        if self._task is not None and self._task.cancelling() > self._before:
            raise asyncio.CancelledError

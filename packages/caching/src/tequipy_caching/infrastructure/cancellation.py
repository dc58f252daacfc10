"""Ends background tasks for good, and callers at once: redis-py loses cancellations."""

import asyncio
from types import TracebackType
from typing import Self


async def cancel_and_wait(task: "asyncio.Task[None]") -> None:
    """Cancel a task until it has ended.

    More than once: redis-py 8.1 swallows a cancellation that meets it while it connects, about one in fifty.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


class Cancellation:
    """Raises `CancelledError` for a cancellation of the running task that was swallowed in its block.

    redis-py sends by `asyncio.wait_for`, which before Python 3.12 returns a result instead of `CancelledError` when the
    result is there at the moment of the cancellation. The end of `asyncio.timeout` is such a cancellation, too.
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
        """Raise it now, before anything else is done."""
        if self._task is not None and self._task.cancelling() > self._before:
            raise asyncio.CancelledError

"""The event loop of a worker's child process: one thread, one loop, resources opened once, for as long as it lives."""

import asyncio
import logging
import signal
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

from billiard.pool import SIG_SOFT_TIMEOUT
from celery.exceptions import SoftTimeLimitExceeded

R = TypeVar("R")

logger = logging.getLogger(__name__)


class ChildLoop:
    """Runs the coroutines of tasks on one loop: pools and channels would die with a loop for each task.

    Opens `resources` on the loop in order, and closes them in reverse. What cannot be opened is tried again by the
    next task, which fails (and is retried) meanwhile.
    """

    def __init__(self, resources: Sequence[AbstractAsyncContextManager[object]]) -> None:
        self._resources = resources
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open: AsyncExitStack | None = None
        self._opening: asyncio.Lock | None = None
        self._running: asyncio.Task[None] | None = None
        self._over_limit = False

    def start(self) -> None:
        """Start the loop, in a process that has been forked."""
        self._loop = asyncio.new_event_loop()
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tequipy-tasks", daemon=True)
        self._thread.start()
        try:
            self.run(self._ensure_open())
        except Exception:
            logger.exception("The worker's resources could not be opened; the next task tries again.")

    def stop(self) -> None:
        """Close the resources and the loop."""
        if self._loop is None or self._thread is None:
            return
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def run_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task's coroutine to its end; on the soft time limit it is cancelled and awaited before this raises.

        The limit is a signal. Celery's own handler raises wherever the main thread is, also in the middle of asking for
        the next attempt, which is then never made. This one only cancels, so the limit shows here or nowhere.
        """
        self._over_limit = False
        signal.signal(SIG_SOFT_TIMEOUT, self._on_soft_limit)  # at each task: the pool sets its own after `start`
        try:
            self.run(self._with_resources(work))
        except CancelledError:
            if self._over_limit:
                raise SoftTimeLimitExceeded from None
            raise

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop to its end, in the context variables of the calling thread; return its result."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the event loop of this process has not been started")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _on_soft_limit(self, *_: object) -> None:
        self._over_limit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None  # once: a signal that comes twice leaves the cleaning up alone

    async def _with_resources(self, work: Coroutine[Any, Any, None]) -> None:
        self._running = asyncio.current_task()
        try:
            if self._over_limit:  # the signal came before this did
                raise asyncio.CancelledError
            await self._ensure_open()
            await work
        finally:
            self._running = None
            work.close()  # in case it was not begun

    async def _ensure_open(self) -> None:
        if self._opening is None:
            raise RuntimeError("the event loop of this process has not been started")
        async with self._opening:
            if self._open is None:
                async with AsyncExitStack() as stack:
                    for resource in self._resources:
                        await stack.enter_async_context(resource)
                    self._open = stack.pop_all()

    async def _close(self) -> None:
        if self._open is not None:
            await self._open.aclose()
            self._open = None

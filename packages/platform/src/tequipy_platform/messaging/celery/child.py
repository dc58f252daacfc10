"""A worker's child process: handlers that are built once, and one thread with the event loop on which they run."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from billiard.pool import SIG_SOFT_TIMEOUT
from celery.exceptions import SoftTimeLimitExceeded

from tequipy_platform._messages import MessageLog
from tequipy_platform._tasks import Handler, Task

R = TypeVar("R")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskRuntime:
    """The handlers of a child process, its resources and its message log.

    `resources` are opened in order before the first task, and closed in reverse order. Without `messages` the outcomes
    of messages are not recorded.
    """

    handlers: Mapping[Task, Handler]
    resources: Sequence[AbstractAsyncContextManager[object]] = ()
    messages: MessageLog | None = None


class ChildLoop:
    """Runs the coroutines of all tasks on one loop, because connection pools cannot be used on several loops.

    If opening the resources fails, the next task tries again; until then tasks fail and are retried. If `build` fails,
    no task could ever succeed, so the worker is stopped.
    """

    def __init__(self, tasks: Sequence[Task], build: Callable[[], TaskRuntime]) -> None:
        self._tasks = tasks
        self._build = build
        self._runtime: TaskRuntime | None = None
        self._worker = os.getpid()  # the parent of the children, or the only process of a worker that does not fork
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open: AsyncExitStack | None = None
        self._opening: asyncio.Lock | None = None
        self._running: asyncio.Task[None] | None = None
        self._over_limit = False

    def start(self) -> None:
        """Build the handlers and start the loop; call it after the process has been forked."""
        try:
            self._runtime = self._build()
            check_handlers(self._tasks, self._runtime.handlers)
        except Exception:
            logger.exception("task_handlers_failed")
            os.kill(self._worker, signal.SIGTERM)
            raise SystemExit(1) from None  # a message that this process was given returns to the queue
        self._loop = asyncio.new_event_loop()
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tequipy-tasks", daemon=True)
        self._thread.start()
        try:
            self.run(self._ensure_open())
        except Exception:
            logger.exception("worker_resources_failed")  # the next task opens them

    @property
    def runtime(self) -> TaskRuntime:
        """The result of `build` in this process."""
        if self._runtime is None:
            raise RuntimeError("this process has built no handlers")
        return self._runtime

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
        """Run a task's coroutine to its end; at the soft time limit it is cancelled and awaited before this raises.

        The limit arrives as a signal. Celery's own handler raises wherever the main thread is, even while a retry is
        being stored, which is then lost. This handler only cancels the coroutine, so the error is raised here alone.
        """
        self._over_limit = False
        signal.signal(SIG_SOFT_TIMEOUT, self._on_soft_limit)  # per task, because the pool replaces it after `start`
        try:
            self.run(self._with_resources(work))
        except CancelledError:
            if self._over_limit:
                raise SoftTimeLimitExceeded from None
            raise

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop in the context variables of the calling thread, and return its result."""
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
            self._running = None  # a second signal must not interrupt the clean-up

    async def _with_resources(self, work: Coroutine[Any, Any, None]) -> None:
        self._running = asyncio.current_task()
        try:
            if self._over_limit:  # the signal arrived before the coroutine started
                raise asyncio.CancelledError
            await self._ensure_open()
            await work
        finally:
            self._running = None
            work.close()  # in case it was never started

    async def _ensure_open(self) -> None:
        if self._opening is None:
            raise RuntimeError("the event loop of this process has not been started")
        async with self._opening:
            if self._open is None:
                async with AsyncExitStack() as stack:
                    for resource in self.runtime.resources:
                        await stack.enter_async_context(resource)
                    self._open = stack.pop_all()

    async def _close(self) -> None:
        if self._open is not None:
            await self._open.aclose()
            self._open = None


def check_handlers(tasks: Sequence[Task], handlers: Mapping[Task, Handler]) -> None:
    """Raise `ValueError` unless there is a handler for each task of the catalogue, and no other."""
    if set(tasks) != set(handlers):
        names = sorted(task.name for task in set(tasks) ^ set(handlers))
        raise ValueError(f"tasks and handlers differ: {', '.join(names)}")

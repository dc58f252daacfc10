"""A worker's child process: handlers that are built once, and one thread with the event loop on which they run."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from billiard.common import TERM_SIGNAL
from billiard.pool import SIG_SOFT_TIMEOUT

from tequipy_platform._messages import MessageLog
from tequipy_platform._tasks import Handler, Task
from tequipy_platform.messaging.deliveries import Deliveries, Outcome, Stop, check_handlers

R = TypeVar("R")

_HAND_BACK_SECONDS: Final = 3
"""How long a child that has to stop may take to cancel its task and to record that it was handed back."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskRuntime:
    """The handlers of a child process, the log of their messages, and resources.

    `resources` are opened in order before the first task, and closed in reverse order.
    """

    handlers: Mapping[Task, Handler]
    messages: MessageLog
    resources: Sequence[AbstractAsyncContextManager[object]] = ()


class ChildLoop:
    """Runs the coroutines of all tasks on one loop, because connection pools cannot be used on several loops.

    If opening the resources fails, the next task tries again. If `build` fails, no task could ever succeed, so the
    worker is stopped. If the loop's thread ends, so does the process, because no task could end either.
    """

    def __init__(self, tasks: Sequence[Task], build: Callable[[], TaskRuntime]) -> None:
        self._tasks = tasks
        self._build = build
        self._runtime: TaskRuntime | None = None
        self._deliveries: Deliveries | None = None
        self._worker = os.getpid()  # the parent of the children, or the only process of a worker that does not fork
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open: AsyncExitStack | None = None
        self._stopping = False

    def start(self) -> None:
        """Build the handlers and start the loop; call it after the process has been forked."""
        try:
            self._runtime = self._build()
            check_handlers(self._tasks, self._runtime.handlers)
        except Exception:
            logger.exception("task_handlers_failed")
            os.kill(self._worker, signal.SIGTERM)
            raise SystemExit(1) from None  # a message that this process was given returns to the queue
        self._deliveries = Deliveries(self._runtime.handlers, self._runtime.messages)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="tequipy-tasks", daemon=True)
        self._thread.start()
        try:
            self.run(self._ensure_open(self._runtime))
        except Exception:
            logger.exception("worker_resources_failed")  # the next task opens them

    def stop(self) -> None:
        """Close the resources and the loop."""
        if self._loop is None or self._thread is None:
            return
        self._stopping = True
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def deliver(self, work: Callable[[Deliveries], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Run one delivery to its end; the soft time limit and the stop of the worker cancel its handler.

        Both arrive as signals, whose usual handlers raise wherever the main thread is, even while an outcome is being
        stored, which is then lost. These handlers only cancel the handler of the task.
        """
        deliveries, runtime = self._deliveries, self._runtime
        if deliveries is None or runtime is None:
            raise RuntimeError("this process has built no handlers")
        # Per task, because the pool replaces the first one after `start`.
        signal.signal(SIG_SOFT_TIMEOUT, lambda *_: self._interrupt(deliveries, Stop.TIME_LIMIT))
        terminate = signal.signal(TERM_SIGNAL, lambda *_: self._hand_back(deliveries))
        handed_back = False
        try:
            outcome = self.run(self._with_resources(runtime, work(deliveries)))
            handed_back = self._stopping
        finally:
            signal.signal(TERM_SIGNAL, terminate)
        if handed_back:
            os.kill(os.getpid(), TERM_SIGNAL)  # now with the pool's own handler, which ends the process
        return outcome

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop in the context variables of the calling thread, and return its result."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the event loop of this process has not been started")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run_loop(self) -> None:
        try:
            if self._loop is not None:
                self._loop.run_forever()
        finally:
            if not self._stopping:
                logger.critical("event_loop_ended")
                os._exit(1)

    def _interrupt(self, deliveries: Deliveries, reason: Stop) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(deliveries.interrupt, reason)

    def _hand_back(self, deliveries: Deliveries) -> None:
        self._stopping = True
        self._interrupt(deliveries, Stop.SHUTDOWN)
        timer = threading.Timer(_HAND_BACK_SECONDS, os._exit, (1,))
        timer.daemon = True
        timer.start()

    async def _with_resources(self, runtime: TaskRuntime, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        try:
            await self._ensure_open(runtime)
        except Exception:
            work.close()
            logger.exception("worker_resources_failed")
            await asyncio.sleep(1)  # the broker delivers the message again at once
            return Outcome.RETURNED
        return await work

    async def _ensure_open(self, runtime: TaskRuntime) -> None:
        if self._open is None:
            async with AsyncExitStack() as stack:
                for resource in runtime.resources:
                    await stack.enter_async_context(resource)
                self._open = stack.pop_all()

    async def _close(self) -> None:
        if self._open is not None:
            await self._open.aclose()
            self._open = None

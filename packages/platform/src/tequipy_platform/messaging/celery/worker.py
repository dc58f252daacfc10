"""Running and stopping a worker: short tasks finish, long ones are handed back, and the process ends in bounded time.

Celery's own soft shutdown sleeps in a signal handler, where no result can be read, and none of its shutdowns ends while
the broker hangs.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from celery import Celery
from celery.worker import WorkController, state

KILL_AFTER: Final = 4.0
"""Seconds after the end of the tasks at which child processes that still run are killed."""
KILL_AFTER_HANDING_BACK: Final = 3.2
"""As above for children that record that their task was handed back, for which they take at most 3 s."""
EXIT_AFTER_KILLING: Final = 1.0
"""Seconds after that at which the process ends, whatever it waits for."""

logger = logging.getLogger(__name__)


def run_worker(
    celery: Celery, *, queues: Sequence[str], concurrency: int, max_memory: int | None, patience: float
) -> int:
    """Run a worker until it is stopped and return its exit status.

    SIGTERM and SIGINT end it when its tasks are done, or after `patience` seconds, when the messages of unfinished
    tasks return to the queue and their child processes are stopped. A second of these signals, or SIGQUIT, does that at
    once. The process ends a few seconds later, whatever it waits for. A child that used more than `max_memory` MiB is
    replaced after its task.
    """

    class StoppableWorker(celery.Worker):  # type: ignore[name-defined,misc]  # -- Celery creates the class at run time
        """A worker with our signal handlers."""

        def install_platform_tweaks(self, worker: WorkController) -> None:
            super().install_platform_tweaks(worker)
            Stop(worker, patience).install()

    worker = StoppableWorker(
        pool_cls="prefork",
        concurrency=concurrency,
        max_memory_per_child=max_memory and max_memory * 1024,  # KiB
        queues=queues,
        # Workers need no messages from each other, and while the broker hangs, events would block the main thread.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    logger.info("worker_started", extra={"queues": list(queues), "concurrency": concurrency})
    worker.start()
    status: int = worker.exitcode or os.EX_OK
    logger.info("worker_stopped", extra={"status": status})
    return status


class Stop:
    """One stop of a worker: its signal handlers, which run in the main thread, and a thread that watches the clock."""

    def __init__(self, worker: WorkController, patience: float) -> None:
        self._worker = worker
        self._patience = patience
        self._process = os.getpid()
        self._main = threading.get_ident()
        self._at_once = threading.Event()
        self._watch: threading.Thread | None = None

    def install(self) -> None:
        """Handle the signals from now on."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGQUIT, self._on_stop)
        signal.signal(signal.SIGALRM, self._on_time)

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that was forked a moment ago
            os._exit(os.EX_OK)
        if self._watch is not None or number == signal.SIGQUIT:
            self._at_once.set()
        if self._watch is None:
            # The main thread sees it when its loop turns: it consumes no more, and waits for the tasks.
            state.should_stop = os.EX_OK  # type: ignore[assignment]  # -- the stubs know its first value alone
            self._watch = threading.Thread(target=self._run, name="tequipy-stop", daemon=True)
            self._watch.start()

    def _run(self) -> None:
        logger.info("worker_stopping", extra={"tasks": len(state.active_requests)})
        deadline = time.monotonic() + self._patience
        while state.active_requests and time.monotonic() < deadline and not self._at_once.wait(0.1):
            pass
        unfinished = bool(state.active_requests)
        if unfinished:
            signal.pthread_kill(self._main, signal.SIGALRM)
        time.sleep(KILL_AFTER_HANDING_BACK if unfinished else KILL_AFTER)
        for child in self._children():
            os.kill(child, signal.SIGKILL)
        time.sleep(EXIT_AFTER_KILLING)
        logger.warning("worker_stop_forced", extra={"tasks": len(state.active_requests)})
        os._exit(os.EX_TEMPFAIL)

    def _on_time(self, *_: object) -> None:
        """Stop the child processes of the running tasks, and return their messages to the queue."""
        unfinished = [request for request in tuple(state.active_requests) if not request.acknowledged]
        logger.warning("tasks_handed_back", extra={"tasks": sorted(request.id for request in unfinished)})
        for request in unfinished:
            request.cancel(self._worker.pool, emit_retry=False)
        for request in unfinished:  # afterwards, because this blocks while the broker hangs
            request.reject(requeue=True)

    def _children(self) -> list[int]:
        pool: Any = self._worker.pool
        processes = getattr(getattr(pool, "_pool", None), "_pool", ())
        return [process.pid for process in tuple(processes) if process.exitcode is None]

"""Heartbeats: files that processes touch while they work, and in which they note the services that do not answer.

`tequipy-worker health` reads them. A heartbeat does not depend on broker and database, because restarting a process
does not help when they are away; their absence is in the file's text.
"""

import asyncio
import fcntl
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from tequipy_observability.wiring import Observability
from tequipy_worker.state import INTERVAL, READY, children_folder, is_locked

if TYPE_CHECKING:  # the scheduler runs without Celery
    from celery import Celery
    from celery.worker import WorkController

_TICK_SECONDS: Final = 1.0
_HANGS_AFTER: Final = 20.0
"""Seconds without a tick of the timer after which a connected consumer counts as hanging."""
_CHECK_SECONDS: Final = 10.0
"""Seconds between two checks of a service."""
_ANSWERED_WITHIN: Final = 20.0
"""Seconds after its last answer at which a service that hangs counts as away."""
_TEXT_BYTES: Final = 80

BROKER: Final = "broker"
DATABASE: Final = "database"

Checks = Mapping[str, Callable[[], Awaitable[object]]]
"""For each service a coroutine function that returns when the service answers, and raises when it does not."""


class Heartbeat:
    """One heartbeat file, and the time of each service's last answer."""

    def __init__(self, file: Path, *services: str) -> None:
        self.file = file
        self._opened = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        self._answered = dict.fromkeys(services, -math.inf)
        self.observability: Observability | None = None
        """Whose metric `service_up` shows at each beat whether all services answer."""
        self.beat()

    def answered(self, service: str) -> None:
        """Note that a service has answered now."""
        self._answered[service] = time.monotonic()

    def failed(self, service: str) -> None:
        """Note that a service does not answer."""
        self._answered[service] = -math.inf

    def beat(self) -> None:
        """Touch the file by writing what the process waits for; in one write, so that no reader sees a part."""
        now = time.monotonic()
        missing = [service for service, last in self._answered.items() if now - last > _ANSWERED_WITHIN]
        text = f"waits for {', '.join(missing)}" if missing else READY
        os.pwrite(self._opened, f"{text:<{_TEXT_BYTES}}\n".encode(), 0)
        if self.observability is not None:
            self.observability.report_up(not missing)

    def lock(self) -> None:
        """Lock the file until this process ends or closes it."""
        fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove the file."""
        self.file.unlink(missing_ok=True)
        os.close(self._opened)


@asynccontextmanager
async def loop_heartbeat(heartbeat: Heartbeat, checks: Checks) -> AsyncIterator[None]:
    """Touch the file from a task of this event loop, so that a blocked loop stops the heartbeat; check the services."""
    tasks = {
        asyncio.create_task(_beat(heartbeat)),
        *(asyncio.create_task(_watch(heartbeat, *it)) for it in checks.items()),
    }
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1)  # a check of a server that hangs may take longer to be cancelled


async def _beat(heartbeat: Heartbeat) -> None:
    while True:
        heartbeat.beat()
        await asyncio.sleep(INTERVAL)


async def _watch(heartbeat: Heartbeat, service: str, check: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await check()
        except Exception:  # noqa: BLE001 -- whatever the reason, the service does not answer
            heartbeat.failed(service)
        else:
            heartbeat.answered(service)
        await asyncio.sleep(_CHECK_SECONDS)


class ChildHeartbeat:
    """The heartbeat of one child process, on the event loop that runs its tasks; an async context manager."""

    def __init__(self, folder: Path, checks: Checks) -> None:
        self._folder = children_folder(folder)
        self._checks = checks
        self._open: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self._folder.glob("[0-9]*"):
            if not is_locked(file):  # of a child that was killed
                file.unlink(missing_ok=True)
        async with AsyncExitStack() as stack:
            # Locked under another name first, because a file without a lock counts as that of a child that has died.
            heartbeat = Heartbeat(self._folder / f".{os.getpid()}", *self._checks)
            stack.callback(heartbeat.close)
            heartbeat.lock()
            heartbeat.file = heartbeat.file.rename(self._folder / str(os.getpid()))
            await stack.enter_async_context(loop_heartbeat(heartbeat, self._checks))
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._open is not None:
            await self._open.aclose()
            self._open = None


class ParentHeartbeat:
    """The heartbeat of the worker's parent process, from a thread that watches its main thread.

    The main thread works while its consumer is connected and its timer ticks, and while it connects to the broker,
    which may take for ever.
    """

    def __init__(self, file: Path) -> None:
        self._heartbeat = Heartbeat(file, BROKER)
        self._worker: Any = None  # celery-types does not know a worker's consumer
        self._connection: object = None
        self._moved = time.monotonic()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="tequipy-heartbeat", daemon=True).start()

    def wire(self, celery: "Celery", observability: Observability) -> None:
        """Watch the worker of this app as soon as it starts, and report whether it is connected."""
        from celery import bootsteps  # noqa: PLC0415 -- the scheduler runs without Celery

        self._heartbeat.observability = observability

        class Ticks(bootsteps.StartStopStep):
            """Calls `_tick` from the worker's timer, so that a main thread that hangs stops it."""

            requires = ("celery.worker.components:Timer",)

            def start(self, worker: "WorkController", owner: ParentHeartbeat = self) -> None:
                """Start to tick."""
                owner._worker = worker
                self.ticks = worker.timer.call_repeatedly(_TICK_SECONDS, owner._tick)  # type: ignore[union-attr]

            def stop(self, worker: "WorkController") -> None:  # noqa: ARG002 -- Celery's signature
                """Stop to tick."""
                self.ticks.cancel()

        celery.steps["worker"].add(Ticks)

    def _tick(self) -> None:
        self._moved = time.monotonic()
        self._heartbeat.answered(BROKER)

    def _run(self) -> None:
        while True:
            if not self._hangs():
                self._heartbeat.beat()
            time.sleep(INTERVAL)

    def _hangs(self) -> bool:
        connection = self._worker.consumer.connection if self._worker is not None else None
        if connection is None:
            self._heartbeat.failed(BROKER)
        if connection is None or connection is not self._connection:
            self._connection, self._moved = connection, time.monotonic()
        return time.monotonic() - self._moved > _HANGS_AFTER


@contextmanager
def broker_check(celery: "Celery", heartbeat: Heartbeat) -> Iterator[None]:
    """Check the broker from a thread of its own while the block lasts, because kombu blocks."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                with celery.connection_for_write() as connection:
                    connection.ensure_connection(max_retries=1)
                    connection.default_channel  # noqa: B018 -- Redis is contacted by its first channel
            except Exception:  # noqa: BLE001 -- whatever the reason, the broker does not answer
                heartbeat.failed(BROKER)
            else:
                heartbeat.answered(BROKER)
            ended.wait(_CHECK_SECONDS)

    threading.Thread(target=run, name="tequipy-broker-check", daemon=True).start()
    try:
        yield
    finally:
        ended.set()

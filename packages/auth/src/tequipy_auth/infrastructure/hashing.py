"""A thread pool for bcrypt behind a bounded, fair queue, so that hashing never blocks the event loop."""

import asyncio
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeAlias, TypeVar

from tequipy_auth.domain.hashing import HashingClient, HashingQueue
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.infrastructure.metrics import HashingMetrics
from tequipy_platform import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

Priority: TypeAlias = Literal["usual", "low", "idle"]
"""The priority of threads compared with all others: the same, a tenth of a core beside a busy one, or next to none."""

NICENESS: Final = 10
"""The niceness of threads with low priority."""

RETRY_AFTER: Final = 2
"""The `Retry-After` in seconds when the queue is full."""

logger = logging.getLogger(__name__)

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A function call that waits for a thread, and the future for its result."""

    function: Callable[[], Any]
    client: HashingClient
    future: Future[Any] = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.perf_counter)


class HashingPool:
    """Runs hashes in threads, as many as cores by default; bcrypt releases the GIL while it works.

    Calls that find no idle thread wait in a `HashingQueue` of `queue` places. The threads start with the first hash and
    end with the context, after which they may start again. A lower `priority` is for hashes that occupy a core for long
    (ADR 0090).
    """

    def __init__(
        self,
        *,
        queue: int,
        workers: int | None = None,
        priority: Priority = "usual",
        name: str = "",
        metrics: HashingMetrics | None = None,
    ) -> None:
        self._name = name
        self._metrics = metrics or HashingMetrics(None)
        self._priority = priority
        self._workers = workers or os.cpu_count() or 1
        self._queue = HashingQueue[_Job](queue)
        self._running = 0
        self._lock = threading.Lock()  # guards _queue, _running and _executor
        self._executor: ThreadPoolExecutor | None = None

    @property
    def pending(self) -> int:
        """The number of hashes that wait or run."""
        with self._lock:
            return self._running + len(self._queue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Fail waiting calls with `Unavailable`, and wait for running ones."""
        with self._lock:
            executor, self._executor = self._executor, None
            waiting = list(iter(self._queue.take, None))
        for job in waiting:
            self._refuse(job)
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)

    async def run(self, client: HashingClient, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a thread.

        Raises `Unavailable` when the queue is full and this call is evicted, at once or while it waits. A caller that
        is cancelled while waiting frees its place; a running function continues to its end.
        """
        job = _Job(partial(function, *args, **kwargs), client)
        with self._lock:
            evicted = self._start_or_wait(job)
        if evicted is not None:
            self._refuse(evicted)
        try:
            result: T = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            with self._lock:
                self._queue.remove(job)
            raise
        return result

    def _start_or_wait(self, job: _Job) -> _Job | None:
        """Give the job to an idle thread or put it into the queue; return the evicted job."""
        if self._running == self._workers:
            return self._queue.put(job, job.client)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(
                self._workers, "auth-hashing", initializer=_set_priority, initargs=(self._priority,)
            )
        self._running += 1
        self._executor.submit(self._work, job)
        return None

    def _refuse(self, job: _Job) -> None:
        if job.future.set_running_or_notify_cancel():
            self._metrics.refused(self._name, job.client)
            job.future.set_exception(
                Unavailable("Too many passwords are being checked; try again.", retry_after=RETRY_AFTER)
            )

    def _work(self, job: _Job | None) -> None:
        """Run a job and then waiting jobs until the queue is empty."""
        while job is not None:
            settle = self._perform(job)
            with self._lock:
                job = self._queue.take()
                if job is None:
                    self._running -= 1
            # Called after the thread is marked idle, so that the caller's next call finds it idle.
            settle()

    def _perform(self, job: _Job) -> Callable[[], None]:
        """Call the job's function; return a function that sets the result of its future."""
        if not job.future.set_running_or_notify_cancel():
            return lambda: None
        self._metrics.started(self._name, job.client, waited=time.perf_counter() - job.submitted_at)
        try:
            return partial(job.future.set_result, job.function())
        except BaseException as error:  # noqa: BLE001 -- any error belongs to the caller
            return partial(job.future.set_exception, error)


def _set_priority(priority: Priority) -> None:
    """Set the priority of the current thread, which on Linux has one of its own (sched(7)).

    A thread of `SCHED_IDLE` makes room at once for any other, a nice one up to 3 ms later. Beside a busy thread on its
    only core the former would starve, so it is nice instead.
    """
    if sys.platform != "linux" or priority == "usual":
        return
    thread = threading.get_native_id()
    if priority == "idle" and len(os.sched_getaffinity(0)) > 1:
        with suppress(OSError):  # a container may refuse it
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            return
    try:
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
    except OSError as error:
        _report_refusal(type(error).__name__)


@cache
def _report_refusal(error: str) -> None:
    """Log once in a process that its threads cannot have a low priority."""
    logger.warning("hashing_priority_refused", extra={"error": error})


def is_bcrypt_digest(digest: str) -> bool:
    """Return whether a stored digest is well-formed and its cost is low enough to be checked."""
    match = _BCRYPT.fullmatch(digest)
    return match is not None and int(match[1]) <= MAX_STORED_COST


def make_salt(cost: int) -> str:
    """Return the beginning of a new digest: version, cost and random salt."""
    import bcrypt  # noqa: PLC0415 -- the worker hashes no password

    return bcrypt.gensalt(cost).decode("ascii")


def make_digest(material: bytes, cost: int) -> str:
    """Return the bcrypt digest of at most 72 bytes; it takes `2**cost` rounds."""
    import bcrypt  # noqa: PLC0415 -- the worker hashes no password

    return bcrypt.hashpw(material, bcrypt.gensalt(cost)).decode("ascii")


def check_digest(material: bytes, digest: str) -> bool:
    """Return whether the digest, for which `is_bcrypt_digest` holds, matches the material."""
    return _check(material, digest) or False


def check_digest_padded(material: bytes, digest: str, cost: int) -> bool:
    """Return the same as `check_digest`; a negative result takes at least `2**cost` rounds.

    The missing rounds of a digest with a lower cost are added exactly: `2**4 + 2**4 + 2**5 + … + 2**(cost - 1)` is
    `2**cost`. So the duration of a failed check reveals neither the stored cost nor whether the digest is damaged.
    """
    matches = _check(material, digest)
    if matches is None:
        make_digest(b"", cost)
    elif not matches:
        for missing in range(_cost_of(digest), cost):
            make_digest(b"", missing)
    return matches or False


def _check(material: bytes, digest: str) -> bool | None:
    """Return whether the digest matches the material; None, at once, if the digest cannot be checked."""
    import bcrypt  # noqa: PLC0415 -- the worker hashes no password

    try:
        return bcrypt.checkpw(material, digest.encode("ascii"))
    # The digest may have an invalid salt of valid characters, or the material more than 72 bytes.
    except ValueError:
        return None


def _cost_of(digest: str) -> int:
    return int(digest.split("$")[2])

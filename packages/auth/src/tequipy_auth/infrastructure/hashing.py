"""Where bcrypt runs: threads of its own behind a bounded, fair queue, so that the event loop never hashes."""

import asyncio
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

import bcrypt

from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.hashing_queue import HashingQueue
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.infrastructure.metrics import HashingMetrics
from tequipy_platform import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

PASSWORDS_NICENESS: Final = 10
"""By how much the threads that hash passwords give way: each would take a core for a quarter of a second at a time.

Measured on 2 busy cores beside 30 parallel logins: `/health` p99 16, 31 and 76 ms, against 609 and 1,089 ms without;
about as many logins.
"""

RETRY_AFTER: Final = 2
"""Seconds after which a full queue has places again."""

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A call that waits for a thread, and where its result goes."""

    function: Callable[[], Any]
    client: HashingClient
    future: Future[Any] = field(default_factory=Future)
    asked_at: float = field(default_factory=time.perf_counter)


class HashingPool:
    """Threads for hashing, as many as cores unless said; bcrypt releases the GIL while it works.

    What finds no idle thread waits in a `HashingQueue` of `queue` places. The threads start with the first hash and end
    with the context, after which they may start again. They run at `niceness` (0: as the others).
    """

    def __init__(
        self,
        *,
        queue: int,
        workers: int | None = None,
        niceness: int = 0,
        name: str = "",
        metrics: HashingMetrics | None = None,
    ) -> None:
        self._name = name
        self._metrics = metrics or HashingMetrics(None)
        self._niceness = niceness
        self._workers = workers or os.cpu_count() or 1
        self._queue = HashingQueue[_Job](queue)
        self._running = 0
        self._lock = threading.Lock()  # over the queue and the two fields around it
        self._executor: ThreadPoolExecutor | None = None

    @property
    def pending(self) -> int:
        """How many hashes wait or run."""
        with self._lock:
            return self._running + len(self._queue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Answer what waits with `Unavailable`, and wait for what runs."""
        with self._lock:
            executor, self._executor = self._executor, None
            waiting = list(iter(self._queue.take, None))
        for job in waiting:
            self._refuse(job)
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)

    async def run(self, client: HashingClient, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function on a thread.

        Raises `Unavailable` when the queue is full and this call is the one that gives way: at once or while it waits.
        A caller that is cancelled while it waits gives its place back; what runs already goes on to its end.
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
        """Give the job to an idle thread or put it into the queue; return the one that gives way to it."""
        if self._running == self._workers:
            return self._queue.put(job, job.client)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._workers, "auth-hashing", initializer=self._lower_priority)
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
        """Run a job, then those that wait, until there is none."""
        while job is not None:
            settle = self._perform(job)
            with self._lock:
                job = self._queue.take()
                if job is None:
                    self._running -= 1
            settle()  # only now, so that the caller finds the place free

    def _perform(self, job: _Job) -> Callable[[], None]:
        """Call the job's function and return how to hand over what came of it."""
        if not job.future.set_running_or_notify_cancel():
            return lambda: None
        self._metrics.started(self._name, job.client, waited=time.perf_counter() - job.asked_at)
        try:
            return partial(job.future.set_result, job.function())
        except BaseException as error:  # noqa: BLE001 -- it is the caller's, whatever it is
            return partial(job.future.set_exception, error)

    def _lower_priority(self) -> None:
        if sys.platform == "linux":  # where each thread has a niceness of its own (sched(7)); 19 is the most
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._niceness)


def is_bcrypt_digest(digest: str) -> bool:
    """Tell whether a stored digest is one that may be checked: well-formed and of a bearable cost."""
    match = _BCRYPT.fullmatch(digest)
    return match is not None and int(match[1]) <= MAX_STORED_COST


def make_digest(material: bytes, cost: int) -> str:
    """Hash at most 72 bytes; runs for `2**cost` rounds."""
    return bcrypt.hashpw(material, bcrypt.gensalt(cost)).decode("ascii")


def check_digest(material: bytes, digest: str) -> bool:
    """Tell whether the digest, one that `is_bcrypt_digest`, is that of the material."""
    return _check(material, digest) or False


def check_digest_padded(material: bytes, digest: str, cost: int) -> bool:
    """Tell the same as `check_digest`; when the answer is no, after `2**cost` rounds at least.

    The rounds that a digest of a lower cost leaves are made up exactly: `2**4 + 2**4 + 2**5 + … + 2**(cost - 1)` is
    `2**cost`. So the time of a failure does not tell what cost is stored, nor whether the digest is damaged.
    """
    matches = _check(material, digest)
    if matches is None:
        make_digest(b"", cost)
    elif not matches:
        for missing in range(_cost_of(digest), cost):
            make_digest(b"", missing)
    return matches or False


def _check(material: bytes, digest: str) -> bool | None:
    """Tell whether the digest is that of the material; None, at once, where nothing could be checked."""
    try:
        return bcrypt.checkpw(material, digest.encode("ascii"))
    except ValueError:  # characters of the right alphabet that are no salt, or more than 72 bytes
        return None


def _cost_of(digest: str) -> int:
    return int(digest.split("$")[2])

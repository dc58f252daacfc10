"""Where bcrypt runs: threads of its own behind a bounded queue, so that the event loop never hashes."""

import asyncio
import os
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

import bcrypt

from tequipy_platform import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

HIGHEST_STORED_COST: Final = 15
"""A stored hash of a higher cost is refused: checking one of cost 31 would take a thread for a day."""

PASSWORDS_NICENESS: Final = 10
"""By how much the threads that hash passwords give way: each would take a core for a quarter of a second at a time.

Measured on 2 busy cores beside 30 parallel logins: `/health` p99 16, 31 and 76 ms, against 609 and 1,089 ms without;
about as many logins.
"""

RETRY_AFTER: Final = 2
"""Seconds after which a full queue has places again."""

_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)


class HashingPool:
    """Threads for hashing, as many as cores unless said; bcrypt releases the GIL while it works.

    The threads start with the first hash and end with the context, after which they may start again. By `niceness` they
    give way to all others.
    """

    def __init__(self, *, queue: int, workers: int | None = None, niceness: int = 0) -> None:
        self._niceness = niceness
        self._workers = workers or os.cpu_count() or 1
        self._limit = self._workers + queue
        self._pending = 0
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    @property
    def pending(self) -> int:
        """How many hashes wait or run."""
        return self._pending

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function on a thread; raises `Unavailable` at once when the queue is full."""
        with self._lock:
            if self._pending >= self._limit:
                raise Unavailable("Too many passwords are being checked; try again.", retry_after=RETRY_AFTER)
            self._pending += 1
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._workers, "auth-hashing", initializer=self._give_way)
        future = self._executor.submit(function, *args, **kwargs)
        # Not when the caller has its answer: one that is cancelled leaves its hash running on the thread.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _give_way(self) -> None:
        if sys.platform == "linux":  # where each thread has a niceness of its own (sched(7)); 19 is the most
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._niceness)

    def _leave(self, _: object) -> None:
        with self._lock:
            self._pending -= 1


def is_bcrypt_digest(digest: str) -> bool:
    """Tell whether a stored digest is one that may be checked: well-formed and of a bearable cost."""
    match = _BCRYPT.fullmatch(digest)
    return match is not None and int(match[1]) <= HIGHEST_STORED_COST


def make_digest(material: bytes, cost: int) -> str:
    """Hash at most 72 bytes; runs for `2**cost` rounds."""
    return bcrypt.hashpw(material, bcrypt.gensalt(cost)).decode("ascii")


def check_digest(material: bytes, digest: str) -> bool:
    """Tell whether the digest, one that `is_bcrypt_digest`, is that of the material."""
    try:
        return bcrypt.checkpw(material, digest.encode("ascii"))
    except ValueError:  # characters of the right alphabet that are no salt, or more than 72 bytes
        return False

"""The circuit breaker: while Redis is unreachable, callers do not wait for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tequipy_caching.redis.cancellation import cancel_and_wait

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds between two probes; each pause is twice the previous one, from `FIRST_PAUSE` to `LONGEST_PAUSE`."""

logger = logging.getLogger(__name__)


class Breaker:
    """Opens at the first failure, and closes when a probe in the background succeeds.

    `probe` raises an exception if it fails. While `has_pending` returns True (changes to replay, or refused writes),
    probes are made even if the breaker is closed, once a second as long as they succeed. `labels` are logged with each
    event, to tell the connection.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[object]], *, has_pending: Callable[[], bool], labels: Mapping[str, str]
    ) -> None:
        self.open = False
        self.probe_failed = False
        """Whether a probe has also failed since the breaker opened."""
        self._probe = probe
        self._has_pending = has_pending
        self._labels = labels
        self._probe_requested = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None

    def trip(self, fault: BaseException) -> None:
        """Open the breaker: from now on only the probe calls Redis."""
        if not self.open:
            self.open, self.probe_failed = True, False
            logger.warning("cache_breaker_opened", extra={**self._labels, "error": f"{type(fault).__name__}: {fault}"})
            self.start_probing()

    def allows_call(self) -> bool:
        """Return whether the running task may call Redis: all if the breaker is closed, else only the probing task."""
        return not self.open or asyncio.current_task() is self._probing

    def start_probing(self) -> None:
        """Start the task that probes until the breaker is closed and nothing is pending, unless it is running."""
        if self._probing is None or self._probing.done():
            self._probe_requested = asyncio.Event()  # a new one, because the event loop may be another one
            self._probing = asyncio.create_task(self._recover(), name="cache-breaker")

    def probe_now(self) -> None:
        """End the pause before the next probe, because there is a sign that Redis is reachable."""
        self._probe_requested.set()

    async def stop(self) -> None:
        """Stop probing, and close the breaker so that a later start begins without it."""
        if self._probing is not None:
            await cancel_and_wait(self._probing)
            self._probing = None
        self.open = False

    async def _recover(self) -> None:
        """Probe until the breaker is closed and nothing is pending."""
        pause = FIRST_PAUSE
        while self.open or self._has_pending():
            await self._pause(pause)
            try:
                await self._probe()
            except Exception:  # noqa: BLE001 -- any failure means that Redis is not usable yet
                self.probe_failed = True
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
                if self.open:
                    self.open = False
                    logger.info("cache_breaker_closed", extra=self._labels)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._probe_requested.wait()
        except TimeoutError:
            return
        self._probe_requested.clear()

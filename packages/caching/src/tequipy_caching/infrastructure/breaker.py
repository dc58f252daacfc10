"""The circuit breaker: while Redis is away nobody waits for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tequipy_caching.infrastructure.cancellation import cancel_and_wait

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds between two probes: doubling from the first to the longest."""

logger = logging.getLogger(__name__)


class Breaker:
    """Opened by the first fault; closed by a probe in the background, which raises `Exception` as long as it fails.

    `behind` tells that something waits for a probe, to be replayed or to be accepted: then the probe is made though it
    is closed. A server that answers is asked once a second.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]], *, has_pending: Callable[[], bool]) -> None:
        self.open = False
        self.confirmed = False
        """Whether a probe has failed too since it opened."""
        self._probe = probe
        self._behind = has_pending
        self._probe_requested = asyncio.Event()
        self._recovery: asyncio.Task[None] | None = None

    def trip(self, fault: BaseException) -> None:
        """Open: from now on nobody asks Redis but the probe."""
        if not self.open:
            self.open, self.confirmed = True, False
            logger.warning("cache_redis_away", extra={"error": f"{type(fault).__name__}: {fault}"})
            self.start_probing()

    def allows_call(self) -> bool:
        """Tell whether the running task may ask Redis."""
        return not self.open or asyncio.current_task() is self._recovery

    def start_probing(self) -> None:
        """See to it that probes are made until Redis is there and nothing waits to be replayed."""
        if self._recovery is None or self._recovery.done():
            self._probe_requested = asyncio.Event()  # a new one: this may be another loop than the last time
            self._recovery = asyncio.create_task(self._recover(), name="cache-breaker")

    def probe_now(self) -> None:
        """Have the next probe made now: somebody has heard from Redis."""
        self._probe_requested.set()

    async def stop(self) -> None:
        """End the probe; the breaker closes, for what comes after starts anew."""
        if self._recovery is not None:
            await cancel_and_wait(self._recovery)
            self._recovery = None
        self.open = False

    async def _recover(self) -> None:
        pause = FIRST_PAUSE
        while self.open or self._behind():
            await self._pause(pause)
            try:
                await self._probe()
            except Exception:  # noqa: BLE001 -- whatever it is, Redis is not back
                self.confirmed = True
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
                if self.open:
                    self.open = False
                    logger.info("cache_redis_back")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._probe_requested.wait()
        except TimeoutError:
            return
        self._probe_requested.clear()

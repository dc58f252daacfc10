"""The circuit breaker: while Redis is away nobody waits for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tequipy_caching.infrastructure.ending import end

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds between two probes: doubling from the first to the longest."""

logger = logging.getLogger(__name__)


class Breaker:
    """Opened by the first fault; closed by a probe in the background, which raises `Exception` as long as it fails."""

    def __init__(self, probe: Callable[[], Awaitable[object]]) -> None:
        self.open = False
        self._probe = probe
        self._recovery: asyncio.Task[None] | None = None

    def trip(self, fault: BaseException) -> None:
        """Open: from now on nobody asks Redis but the probe."""
        if not self.open:
            self.open = True
            logger.warning("cache_redis_away", extra={"error": f"{type(fault).__name__}: {fault}"})
            self._recovery = asyncio.create_task(self._recover(), name="cache-breaker")

    async def stop(self) -> None:
        """End the probe; the breaker closes, for what comes after starts anew."""
        if self._recovery is not None:
            await end(self._recovery)
            self._recovery = None
        self.open = False

    async def _recover(self) -> None:
        pause = FIRST_PAUSE
        while self.open:
            await asyncio.sleep(pause)
            try:
                await self._probe()
            except Exception:  # noqa: BLE001 -- whatever it is, Redis is not back
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.open = False
                logger.info("cache_redis_back")

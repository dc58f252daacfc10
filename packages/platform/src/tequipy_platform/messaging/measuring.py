"""Periodic measurement of rows, for gauges that one kind of process exports."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from tequipy_platform.messaging.deliveries import describe

logger = logging.getLogger(__name__)


async def measure_periodically(measure: Callable[[], Awaitable[None]], *, seconds: float, event: str) -> None:
    """Call `measure` at once and then every `seconds`, until the task is cancelled.

    Any error may be temporary: of several in a row the first one is logged as `event`.
    """
    failed = False
    while True:
        try:
            await measure()
            failed = False
        except Exception as error:  # noqa: BLE001 -- as above
            if not failed:
                logger.warning(event, extra={"error": describe(error)})
            failed = True
        await asyncio.sleep(seconds)


@asynccontextmanager
async def periodic_measurement(
    measure: Callable[[], Awaitable[None]], *, seconds: float, event: str
) -> AsyncIterator[None]:
    """Run `measure_periodically` in a task while the block lasts."""
    task = asyncio.create_task(measure_periodically(measure, seconds=seconds, event=event), name=event)
    try:
        yield
    finally:
        await cancel_and_wait([task])


async def cancel_and_wait(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended.

    Repeats the cancellation every 0.1 s: Python 3.11's `wait_for`, which drivers use for connecting, can lose one.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=0.1)

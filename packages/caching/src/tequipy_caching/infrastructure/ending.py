"""Ends background tasks for good."""

import asyncio


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel a task until it has ended.

    More than once: redis-py 8.1 swallows a cancellation that meets it while it connects, about one in fifty.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)

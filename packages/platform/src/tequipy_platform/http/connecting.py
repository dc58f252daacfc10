"""Connects to the first address of a host that accepts (Happy Eyeballs, RFC 8305)."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import httpcore2

_DELAY: Final = 0.25
"""Seconds after which the next address is tried too (RFC 8305, section 5)."""

Connecting = Coroutine[Any, Any, httpcore2.AsyncNetworkStream]


async def connect_to_first(
    addresses: Iterable[str], connect: Callable[[str], Connecting]
) -> httpcore2.AsyncNetworkStream:
    """Return the first connection; an address that does not answer, as with broken IPv6, delays it by `_DELAY` alone.

    Raises the last error when all addresses have failed.
    """
    waiting = deque(addresses)
    tasks: set[asyncio.Task[httpcore2.AsyncNetworkStream]] = set()
    error: BaseException = httpcore2.ConnectError("The host has no address.")
    try:
        while waiting or tasks:
            if waiting:
                tasks.add(asyncio.create_task(connect(waiting.popleft())))
            done, _ = await asyncio.wait(
                tasks, timeout=_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                tasks.remove(task)
                failure = task.exception()
                if failure is None:
                    return task.result()
                error = failure
        raise error
    finally:
        if tasks:
            # In a task, because a second cancellation must not interrupt it. The other attempts refer to it.
            await asyncio.shield(asyncio.ensure_future(_abandon(tasks)))


async def _abandon(tasks: set[asyncio.Task[httpcore2.AsyncNetworkStream]]) -> None:
    """Cancel the other attempts, and close connections that were accepted at the same moment."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await task.result().aclose()

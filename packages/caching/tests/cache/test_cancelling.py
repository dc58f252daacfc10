"""A caller that is cancelled while Redis is asked gets `CancelledError`, in every phase of a request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tequipy_caching import RatePolicy
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.rate_limit.limiter import RedisRateLimiter

LOGIN = RatePolicy("login", limit=100_000, period=60)
STEPS = 40
"""More turns of the event loop than a request takes on a new connection."""

Call = Callable[[TieredCacheManager, RedisRateLimiter], Awaitable[object]]
CALLS: dict[str, Call] = {
    "get": lambda manager, _: manager.cache("remote", str).get("ada"),
    "set": lambda manager, _: manager.cache("remote", str).set("ada", "Ada"),
    "delete": lambda manager, _: manager.cache("remote", str).delete("ada"),
    "add": lambda manager, _: manager.expiring_set("revoked").add("ada", ttl=60),
    "contains": lambda manager, _: manager.expiring_set("revoked").contains("bob"),
    "ping": lambda manager, _: manager.ping(),
    "hit": lambda _, limiter: limiter.hit(LOGIN, "ada"),
    "peek": lambda _, limiter: limiter.peek(LOGIN, "ada"),
    "reset": lambda _, limiter: limiter.reset(LOGIN, "ada"),
}


@pytest.mark.parametrize("connections", ["kept", "new"])
@pytest.mark.parametrize("call", CALLS)
async def test_no_cancellation_is_swallowed(
    start: Any, limiters: Any, redis_url: str, call: str, connections: str
) -> None:
    """A caller cancelled at any step of a request, on an idle or a new connection, never gets a result."""
    manager, limiter = await start(redis_url, live=False), await limiters(redis_url, live=False)
    swallowed, cancelled = [], 0
    for step in range(STEPS):
        if connections == "new":
            await manager.link._connections.disconnect_idle()
            await limiter.link._connections.disconnect_idle()
        task = asyncio.ensure_future(CALLS[call](manager, limiter))
        for _ in range(step):
            await asyncio.sleep(0)
        if not task.cancel():
            await task
            continue
        cancelled += 1
        await asyncio.wait({task})
        if not task.cancelled():
            swallowed.append(step)
    print(f"{call}, {connections} connections: {len(swallowed)} of {cancelled} swallowed, at the steps {swallowed}")
    assert cancelled > 0
    assert swallowed == []
    assert manager.health().l2 == "up"
    assert not limiter.link.breaker.open


async def test_a_callers_own_timeout_raises_timeout_error(start: Any, redis_url: str) -> None:
    """`asyncio.timeout` around a call raises `TimeoutError` and nothing else, at whatever step it ends."""
    words = (await start(redis_url)).cache("remote", str)
    loop = asyncio.get_running_loop()

    async def ask(deadlines: list[asyncio.Timeout]) -> bool:
        async with asyncio.timeout(60) as deadline:
            deadlines.append(deadline)
            await words.get("ada")
        return deadline.expired()

    for step in range(STEPS):
        deadlines: list[asyncio.Timeout] = []
        task = asyncio.ensure_future(ask(deadlines))
        for _ in range(step):
            await asyncio.sleep(0)
        if deadlines and not task.done():
            deadlines[0].reschedule(loop.time())
        try:
            assert not await task, "it was over, and the caller got an answer"
        except TimeoutError:
            continue

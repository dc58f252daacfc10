"""Connections that are lost in use: the request is repeated on a new one, and the breaker stays closed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer

KILLS = 30
CALLERS = 40
PLENTY = RatePolicy("plenty", 1_000_000, 1_000_000)
TIGHT = RatePolicy("tight", 2000, 1_000_000)


async def kill_connections(server: ValkeyServer, stopped: asyncio.Event, progress: Callable[[], int]) -> int:
    """Have the server close all data connections again and again, each time after further calls."""
    killed = 0
    async with Redis.from_url(server.url()) as redis:
        for _ in range(KILLS):
            done = progress()
            killed += await cast("Any", redis).execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            async with asyncio.timeout(20):
                while progress() < done + 3 * CALLERS:
                    await asyncio.sleep(0.001)
    stopped.set()
    return killed


async def under_load(call: Callable[[], Awaitable[object]], server: ValkeyServer) -> tuple[int, int]:
    """Call from many tasks while connections are killed; return the numbers of calls and of killed connections."""
    stopped, calls = asyncio.Event(), 0

    async def go_on() -> None:
        nonlocal calls
        while not stopped.is_set():
            await call()
            calls += 1
            await asyncio.sleep(0)  # a call that is decided in this process never yields to other tasks

    callers = [asyncio.create_task(go_on()) for _ in range(CALLERS)]
    killed = await kill_connections(server, stopped, lambda: calls)
    await asyncio.gather(*callers)
    return calls, killed


async def test_every_decision_is_counted(
    limiters: Callable[..., Awaitable[RedisRateLimiter]],
    private_redis: ValkeyServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While data connections are killed under load, no decision is degraded, and all are counted, few twice."""
    limiter = await limiters(private_redis.url())
    passed = degraded = tight = 0

    async def hit() -> None:
        nonlocal passed, degraded, tight
        decision = await limiter.hit(PLENTY, "ada")
        passed += decision.allowed
        degraded += decision.degraded
        decision = await limiter.hit(TIGHT, "ada")
        tight += decision.allowed
        degraded += decision.degraded

    calls, killed = await under_load(hit, private_redis)
    outages = [each.message for each in caplog.records].count("cache_breaker_opened")
    counted = PLENTY.limit - (await limiter.peek(PLENTY, "ada")).remaining
    print(f"{outages} outages, {degraded} of {2 * calls} decisions degraded, {killed} connections killed")
    print(f"{passed} passed and {counted} counted; {tight} of {TIGHT.limit} passed")
    assert killed > KILLS
    assert (outages, degraded) == (0, 0)
    assert passed <= counted + calls // 1000 + 1  # the policy releases one request in 1 s
    assert counted <= passed + killed
    assert tight <= TIGHT.limit + 1


async def test_caches_survive_lost_connections(
    start: Any, private_redis: ValkeyServer, caplog: pytest.LogCaptureFixture, factory: Any
) -> None:
    """While data connections are killed under load, reads, loads and changes reach Redis, and no breaker opens."""
    manager = await start(private_redis.url())
    remote, number = manager.cache("remote", str), 0

    async def use() -> None:
        nonlocal number
        number += 1
        key = number
        await remote.set(key, "old")
        await remote.get_or_set(-key, factory("loaded"))
        await remote.delete(key)
        assert await remote.get(key) is None

    calls, killed = await under_load(use, private_redis)
    outages = [each.message for each in caplog.records].count("cache_breaker_opened")
    print(f"{outages} outages in {4 * calls} requests, {killed} connections killed")
    assert outages == 0
    assert manager.health().recovery_queue == 0


async def test_a_repeated_request_gets_the_same_lease(start: Any, private_redis: ValkeyServer) -> None:
    """A caller that repeats its request for a lease, as after a lost connection, gets it again; others do not."""
    manager = await start(private_redis.url())
    tier = manager.cache("words", str)._shared
    await tier.read(["ada"], (), storing=True)
    token, other = "a" * 16, "b" * 16
    assert await tier.lock(["ada"], (), token, 60) == {"ada": 0}
    assert await tier.lock(["ada"], (), token, 60) == {"ada": 0}
    assert (await tier.lock(["ada"], (), other, 60))["ada"] > 0

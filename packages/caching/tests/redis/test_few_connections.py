"""A server that accepts fewer connections than a process would use: requests share the existing ones."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer

PLENTY = RatePolicy("plenty", 100_000, 1_000_000)
CALLERS = 200


async def limit(server: ValkeyServer, connections: int) -> None:
    async with Redis.from_url(server.url()) as redis:
        await redis.config_set("maxclients", connections)


def lines(caplog: pytest.LogCaptureFixture, message: str) -> int:
    return [each.message for each in caplog.records].count(message)


@pytest.mark.parametrize("processes", [1, 2])
async def test_few_connections_are_no_outage(
    start: Any,
    private_redis: ValkeyServer,
    eventually: Callable[..., Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
    processes: int,
) -> None:
    """With `maxclients` far below the pool size, values are shared, the breaker stays closed and one line is logged."""
    await limit(private_redis, 8)
    managers = [await start(private_redis.url(), live=False) for _ in range(processes)]
    caches = [manager.cache("remote", str) for manager in managers]
    for cache in caches:
        await cache.set("first", "word")
    await asyncio.gather(*(caches[0].set(number, "word") for number in range(CALLERS)))
    found = await asyncio.gather(*(caches[-1].get(number) for number in range(CALLERS)))
    await eventually(lambda: all(manager.backplane.live for manager in managers), 60)
    assert all([await manager.ping() > 0 for manager in managers])
    outages, said = lines(caplog, "cache_breaker_opened"), lines(caplog, "cache_connections_limited")
    print(f"{found.count('word')} of {CALLERS} found, {outages} outages, {said} lines")
    assert found.count("word") == CALLERS
    assert outages == 0
    assert 1 <= said <= processes


async def test_few_connections_count_all_hits(
    limiters: Callable[..., Awaitable[RedisRateLimiter]], private_redis: ValkeyServer
) -> None:
    """With `maxclients` far below the pool size, no decision is degraded, and all are counted."""
    await limit(private_redis, 8)
    limiter = await limiters(private_redis.url())
    decisions = await asyncio.gather(*(limiter.hit(PLENTY, "ada") for _ in range(CALLERS)))
    counted = PLENTY.limit - (await limiter.peek(PLENTY, "ada")).remaining
    print(f"{sum(each.degraded for each in decisions)} of {CALLERS} degraded, {counted} counted")
    assert not any(each.degraded for each in decisions)
    assert counted >= CALLERS - 1  # the policy releases one request in 10 s
    assert not limiter.link.breaker.open


async def test_a_full_server_opens_the_breaker(
    start: Any, private_redis: ValkeyServer, factory: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Without any connection, the breaker opens, and closes when the server accepts one."""
    await limit(private_redis, 4)
    others = [Redis.from_url(private_redis.url()) for _ in range(4)]
    for other in others:
        await other.ping()
    manager = await start(private_redis.url(), live=False)
    assert await manager.cache("words", str).get_or_set("ada", factory("Ada")) == "Ada"
    await eventually(lambda: manager.health().l2 != "up")
    for other in others:
        await other.aclose()
    await eventually(lambda: manager.health().l2 == "up" and manager.backplane.live, 60)

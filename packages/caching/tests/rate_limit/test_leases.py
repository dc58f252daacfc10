"""The rest of a lease is released when the process ends or forgets it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis

from tequipy_caching import CachePolicy, RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_caching.wiring import CacheSettings, build_rate_limiter
from tequipy_devstack.servers import ValkeyServer

LEASED = RatePolicy("leased", 100, 3600, lease=30)
PROCESSES = 12

Build = Callable[..., Awaitable[RedisRateLimiter]]


async def test_a_process_releases_its_leases_when_it_ends(limiters: Build, redis_url: str, redis_prefix: str) -> None:
    """Of twelve short processes that each make one request of a limit of 100, none is denied."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, l2_timeout=5)
    decisions = []
    for _ in range(PROCESSES):
        async with build_rate_limiter(settings) as limiter:
            decisions.append(await limiter.hit(LEASED, "ada"))
    left = await (await limiters(redis_url)).peek(LEASED, "ada")
    print(f"refused: {sum(not decision.allowed for decision in decisions)}, left: {left.remaining}")
    assert all(decision.allowed for decision in decisions)
    assert left.remaining == 100 - PROCESSES


async def test_a_forgotten_lease_is_released(limiters: Build, redis_url: str, eventually: Any) -> None:
    """A process whose memory is full of other clients releases the leases that it forgets."""
    limiter = await limiters(redis_url, policies={"rate_limits": CachePolicy(ttl=60, l1_maxsize=2)})
    other = await limiters(redis_url)
    for number in range(PROCESSES):
        assert (await limiter.hit(LEASED, "ada")).allowed
        for client in ("bob", "eve"):
            await limiter.hit(LEASED, (client, number))

        async def given_back(spent: int = number + 1) -> bool:
            return (await other.peek(LEASED, "ada")).remaining == 100 - spent

        await eventually(given_back)


async def test_a_lease_forgotten_during_its_request_is_released(
    limiters: Build, redis_url: str, eventually: Any, monkeypatch: Any
) -> None:
    """A lease that is forgotten during its request is released."""
    limiter = await limiters(redis_url, policies={"rate_limits": CachePolicy(ttl=60, l1_maxsize=1)})
    other = await limiters(redis_url)
    answered, go, run = asyncio.Event(), asyncio.Event(), limiter._buckets.run

    async def held(budgets: Any, asks: Any) -> Any:
        grants = await run(budgets, asks)
        answered.set()
        if asks[0].need:
            await go.wait()
        return grants

    monkeypatch.setattr(limiter._buckets, "run", held)
    asking = asyncio.create_task(limiter.hit(LEASED, "ada"))
    await answered.wait()
    monkeypatch.setattr(limiter._buckets, "run", run)
    await limiter.hit(LEASED, "bob")
    go.set()
    assert (await asking).allowed

    async def given_back() -> bool:
        return (await other.peek(LEASED, "ada")).remaining == 99

    await eventually(given_back)


async def test_spent_requests_of_released_leases_stay_counted(redis_url: str, redis_prefix: str) -> None:
    """Many short processes that use all they get let exactly the burst pass."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, l2_timeout=5)
    passed = 0
    for number in range(PROCESSES):
        async with build_rate_limiter(settings) as limiter:
            decisions = [await limiter.hit(LEASED, "ada") for _ in range(3 * number)]
            passed += sum(decision.allowed for decision in decisions)
    assert passed == 100


async def test_closing_without_redis_raises_nothing(private_redis: ValkeyServer) -> None:
    """A process that cannot release its leases ends without an error; the leases expire."""
    settings = CacheSettings(url=SecretStr(private_redis.url()))
    async with build_rate_limiter(settings) as limiter:
        for number in range(300):
            await limiter.hit(LEASED, number)
        private_redis.kill()


async def test_many_leases_are_released_by_few_commands(private_redis: ValkeyServer) -> None:
    """Closing with 300 leases runs a few scripts."""
    settings = CacheSettings(url=SecretStr(private_redis.url()), l2_timeout=5)
    async with Redis.from_url(private_redis.url()) as redis:
        async with build_rate_limiter(settings) as limiter:
            for number in range(300):
                await limiter.hit(LEASED, number)
            await redis.config_resetstat()
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] <= 5

"""What is left of a lease goes back when the process ends or forgets it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis

from tequipy_caching import CachePolicy, RatePolicy
from tequipy_caching.infrastructure.limiter import RedisRateLimiter
from tequipy_caching.wiring import CacheSettings, build_rate_limiter
from tequipy_devstack.servers import ValkeyServer

LEASED = RatePolicy("leased", 100, 3600, lease=30)
PROCESSES = 12

Build = Callable[..., Awaitable[RedisRateLimiter]]


async def test_a_process_that_ends_gives_back_its_leases(limiters: Build, redis_url: str, redis_prefix: str) -> None:
    """Of twelve processes that come and go with one request each of a budget of 100 none is refused."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, l2_timeout=5)
    decisions = []
    for _ in range(PROCESSES):
        async with build_rate_limiter(settings) as limiter:
            decisions.append(await limiter.hit(LEASED, "ada"))
    left = await (await limiters(redis_url)).peek(LEASED, "ada")
    print(f"refused: {sum(not decision.allowed for decision in decisions)}, left: {left.remaining}")
    assert all(decision.allowed for decision in decisions)
    assert left.remaining == 100 - PROCESSES


async def test_a_lease_that_is_forgotten_goes_back(limiters: Build, redis_url: str, eventually: Any) -> None:
    """A process whose memory is full of other clients keeps nothing of a budget for a lease that it has forgotten."""
    limiter = await limiters(redis_url, policies={"rate_limits": CachePolicy(ttl=60, l1_maxsize=2)})
    other = await limiters(redis_url)
    for number in range(PROCESSES):
        assert (await limiter.hit(LEASED, "ada")).allowed
        for client in ("bob", "eve"):
            await limiter.hit(LEASED, (client, number))

        async def given_back(spent: int = number + 1) -> bool:
            return (await other.peek(LEASED, "ada")).remaining == 100 - spent

        await eventually(given_back)


async def test_a_lease_forgotten_while_it_is_asked_for_goes_back(
    limiters: Build, redis_url: str, eventually: Any, monkeypatch: Any
) -> None:
    """What is granted to a lease that was forgotten meanwhile is given back."""
    limiter = await limiters(redis_url, policies={"rate_limits": CachePolicy(ttl=60, l1_maxsize=1)})
    other = await limiters(redis_url)
    answered, go, run = asyncio.Event(), asyncio.Event(), limiter._run

    async def held(budgets: Any, asks: Any) -> Any:
        grants = await run(budgets, asks)
        answered.set()
        if asks[0].need:
            await go.wait()
        return grants

    monkeypatch.setattr(limiter, "_run", held)
    asking = asyncio.create_task(limiter.hit(LEASED, "ada"))
    await answered.wait()
    monkeypatch.setattr(limiter, "_run", run)
    await limiter.hit(LEASED, "bob")
    go.set()
    assert (await asking).allowed

    async def given_back() -> bool:
        return (await other.peek(LEASED, "ada")).remaining == 99

    await eventually(given_back)


async def test_what_was_spent_of_a_lease_stays_counted(redis_url: str, redis_prefix: str) -> None:
    """Of many short processes that take as much as they get, exactly the burst passes."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix, l2_timeout=5)
    passed = 0
    for number in range(PROCESSES):
        async with build_rate_limiter(settings) as limiter:
            decisions = [await limiter.hit(LEASED, "ada") for _ in range(3 * number)]
            passed += sum(decision.allowed for decision in decisions)
    assert passed == 100


async def test_an_end_without_redis_is_no_error(private_redis: ValkeyServer) -> None:
    """A process that cannot give back its leases ends all the same; they end by themselves."""
    settings = CacheSettings(url=SecretStr(private_redis.url()))
    async with build_rate_limiter(settings) as limiter:
        for number in range(300):
            await limiter.hit(LEASED, number)
        private_redis.kill()


async def test_many_leases_go_back_in_few_commands(private_redis: ValkeyServer) -> None:
    """An end with 300 leases is a few scripts."""
    settings = CacheSettings(url=SecretStr(private_redis.url()), l2_timeout=5)
    async with Redis.from_url(private_redis.url()) as redis:
        async with build_rate_limiter(settings) as limiter:
            for number in range(300):
                await limiter.hit(LEASED, number)
            await redis.config_resetstat()
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] <= 5

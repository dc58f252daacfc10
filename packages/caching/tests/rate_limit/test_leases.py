"""The rest of a lease is released when the process ends or forgets it."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tequipy_caching import CachePolicy, Key, RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_caching.testing import MemoryRateLimiter
from tequipy_caching.wiring import CacheSettings, build_rate_limiter
from tequipy_devstack.call_counts import calls_of
from tequipy_devstack.servers import ValkeyServer

from .counting import calls

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


HOURLY = RatePolicy("leased", 1000, 3600, lease=50)


async def test_a_lease_saves_commands(limiters: Build, private_redis: ValkeyServer) -> None:
    """Far from its limit, a client costs under 0.1 commands a request with a lease, and one command without."""
    limiter = await limiters(private_redis.url())
    costs = []
    for policy in (dataclasses.replace(HOURLY, name="plain", lease=0), HOURLY):
        before = await calls(private_redis.url())
        for _ in range(300):
            assert (await limiter.hit(policy, "ada")).allowed
        costs.append((await calls(private_redis.url()) - before) / 300)
    print(f"commands a request: {costs[0]:.3f} without, {costs[1]:.3f} with a lease")
    assert costs[0] >= 1
    assert costs[1] < 0.1


async def test_a_leased_hit_makes_few_calls(limiters: Build, redis_url: str) -> None:
    """A request that a lease decides calls at most 30 functions, with its bucket in memory counted and its metrics."""
    limiter = await limiters(redis_url)
    await limiter.hit(HOURLY, "ada")
    cost = await calls_of(limiter.hit_all, [(HOURLY, "ada")])
    print(f"{cost} calls")
    assert cost <= 30


async def test_a_leased_hit_is_decided_without_waiting(limiters: Build, redis_url: str) -> None:
    """`try_hit_all` counts a request that leases let pass, and otherwise neither decides nor counts."""
    limiter = await limiters(redis_url)
    unleased = RatePolicy("unleased", 100, 3600)
    assert limiter.try_hit_all([(LEASED, "ada")]) is None
    await limiter.hit(LEASED, "ada")
    assert limiter.try_hit_all([(LEASED, "ada"), (unleased, "ada")]) is None
    counted = limiter.try_hit_all([(LEASED, "ada")])
    assert counted is not None
    assert (counted[1].allowed, counted[1].remaining) == (True, 98)
    assert limiter.try_hit_all([(LEASED, "ada")], LEASED.lease) is None
    assert (await limiter.peek(LEASED, "ada")).remaining == 98
    assert MemoryRateLimiter().try_hit_all([(LEASED, "ada")]) is None


async def test_leases_report_the_decisive_budget(limiters: Build, redis_url: str) -> None:
    """Requests in leases of several budgets get the policies and numbers that they would get without leases."""
    limiter, fake = await limiters(redis_url), MemoryRateLimiter()
    wide = dataclasses.replace(HOURLY, name="wide", lease=7)
    tight = RatePolicy("tight", 120, 3600, lease=10)
    first: list[tuple[RatePolicy, Key]] = [(wide, "ada"), (tight, "ada")]
    for hits in [first] * 30 + [[(tight, "ada"), (HOURLY, "eve")]] * 60:
        policy, decision = await limiter.hit_all(hits)
        expected_policy, expected = await fake.hit_all(hits)
        assert policy is expected_policy
        assert (decision.allowed, decision.limit, decision.remaining) == (True, expected.limit, expected.remaining)


async def test_a_wrong_hit_is_refused_in_spite_of_a_lease(limiters: Build, redis_url: str) -> None:
    """A cost below 1, a key of another type and an empty list of budgets raise, and spend nothing."""
    limiter = await limiters(redis_url)
    before = await limiter.hit(HOURLY, "ada")
    wrong: Any = True
    with pytest.raises(ValueError, match="cost must be"):
        await limiter.hit_all([(HOURLY, "ada")], 0)
    with pytest.raises(ValueError, match="at least one budget"):
        await limiter.hit_all([])
    with pytest.raises(TypeError, match="not bool"):
        await limiter.hit_all([(HOURLY, wrong)])
    assert (await limiter.hit(HOURLY, "ada")).remaining == before.remaining - 1


async def test_concurrent_requests_wait_for_one_lease(limiters: Build, private_redis: ValkeyServer) -> None:
    """Concurrent requests are served by one lease."""
    limiter = await limiters(private_redis.url())
    await limiter.peek(HOURLY, "bob")  # so that the server knows the script
    before = await calls(private_redis.url())
    decisions = await asyncio.gather(*(limiter.hit(HOURLY, "ada") for _ in range(50)))
    assert all(decision.allowed for decision in decisions)
    assert await calls(private_redis.url()) - before == 1


async def test_cancelling_a_lease_request_affects_no_other_request(limiters: Build, redis_url: str) -> None:
    """If the task that requests a lease is cancelled, the waiting ones ask for themselves."""
    limiter = await limiters(redis_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limiter._buckets, "run", lambda *_: asyncio.Event().wait())
        tasks = [asyncio.create_task(limiter.hit(HOURLY, "ada")) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(not isinstance(answer, BaseException) and answer.allowed for answer in answers[1:])

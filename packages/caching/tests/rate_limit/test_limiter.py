"""The limiter on a real Redis: the script's arithmetic, several processes, leases, and remembered denials."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit import gcra
from tequipy_caching.rate_limit.gcra import Grant
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer

from .counting import calls

SLOW = RatePolicy("slow", 3, 3600)
Build = Callable[..., Awaitable[RedisRateLimiter]]


async def test_many_clients_of_a_network_cost_few_commands(limiters: Build, private_redis: ValkeyServer) -> None:
    """With a lease in each of three policies, a request costs under 0.1 commands, as with one policy."""
    limiter = await limiters(private_redis.url())
    near, mid, far = (RatePolicy(f"n{times}", 600 * times, 60, lease=20 * times) for times in (1, 8, 32))
    before, number = await calls(private_redis.url()), 400
    for _ in range(number):
        _, decision = await limiter.hit_all([(near, "a"), (mid, "a"), (far, "a")])
        assert decision.allowed
    cost = (await calls(private_redis.url()) - before) / number
    print(f"commands for each request under three leased budgets: {cost:.3f}")
    assert cost < 0.1


@pytest.mark.parametrize("lease", [0, 2])
async def test_releases_with_different_limits_share_the_bound(limiters: Build, redis_url: str, lease: int) -> None:
    """With limits of 10 and 5 an hour at the same time, 10 requests pass and not 15, in one or two processes."""
    old, new = await limiters(redis_url), await limiters(redis_url)
    ten, five = RatePolicy("login", 10, 3600, lease=lease), RatePolicy("login", 5, 3600)
    orders = {
        "taking turns": [(old, ten), (new, five)] * 20,
        "10 first": [(old, ten)] * 20 + [(new, five)] * 20,
        "5 first": [(new, five)] * 20 + [(old, ten)] * 20,
        "one process": [(old, five), (old, ten)] * 20,
    }
    passed = {}
    for order, hits in orders.items():
        decisions = [await limiter.hit(policy, order) for limiter, policy in hits]
        assert not any(decision.degraded for decision in decisions)
        passed[order] = sum(decision.allowed for decision in decisions)
    print(passed)
    assert all(5 <= number <= 10 for number in passed.values())
    if not lease:
        assert set(passed.values()) == {10}


async def test_a_denial_is_remembered(limiters: Build, private_redis: ValkeyServer) -> None:
    """After a denial the process denies by itself until the denial ends, so that an attack does not reach Redis."""
    limiter = await limiters(private_redis.url())
    policy = RatePolicy("short", 4, 1)
    while (refused := await limiter.hit(policy, "ada")).allowed:
        pass
    before = await calls(private_redis.url())
    repeated = [await limiter.hit(policy, "ada", cost=cost) for cost in (1, 1, 3)]
    if await calls(private_redis.url()) == before:  # otherwise this machine was slower than the denial lasted
        assert not any(decision.allowed for decision in repeated)
        assert repeated[1].retry_after <= repeated[0].retry_after <= refused.retry_after
        assert repeated[2].retry_after > 0.5
        assert not (await limiter.peek(policy, "ada")).allowed
    await asyncio.sleep(refused.retry_after)
    assert (await limiter.hit(policy, "ada")).allowed


async def test_a_denial_of_five_does_not_deny_one(limiters: Build, redis_url: str) -> None:
    """After the denial of five requests at once, a single one may still pass."""
    limiter = await limiters(redis_url)
    policy = RatePolicy("costly", 5, 3600)
    assert (await limiter.hit(policy, "ada")).allowed
    assert not (await limiter.hit(policy, "ada", cost=5)).allowed
    assert (await limiter.peek(policy, "ada")).allowed
    assert (await limiter.hit(policy, "ada")).allowed


async def test_a_reset_lifts_denials_in_other_processes(limiters: Build, redis_url: str, eventually: Any) -> None:
    """After a reset in one process, another one forgets its denial before it ends."""
    one, other = await limiters(redis_url), await limiters(redis_url)
    for _ in range(4):
        await other.hit(SLOW, "ada")
    assert not (await other.hit(SLOW, "ada")).allowed
    started = time.monotonic()
    await one.reset(SLOW, "ada")

    async def lifted() -> bool:
        return (await other.peek(SLOW, "ada")).allowed

    await eventually(lifted)
    print(f"lifted after {(time.monotonic() - started) * 1000:.1f} ms")
    assert (await other.hit(SLOW, "ada")).remaining == 2


async def test_a_denial_that_raced_a_reset_is_not_remembered(
    limiters: Build, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denial that was in transit when the reset arrived is returned to its caller, but not remembered."""
    limiter = await limiters(redis_url)
    for _ in range(3):
        await limiter.hit(SLOW, "ada")
    answered, go, run = asyncio.Event(), asyncio.Event(), limiter._buckets.run

    async def held(*arguments: Any) -> list[Grant]:
        grants = await run(*arguments)
        answered.set()
        await go.wait()
        return grants

    monkeypatch.setattr(limiter._buckets, "run", held)
    racing = asyncio.create_task(limiter.hit(SLOW, "ada"))
    await answered.wait()
    await limiter.reset(SLOW, "ada")
    go.set()
    assert not (await racing).allowed
    assert (await limiter.hit(SLOW, "ada")).allowed


async def test_an_invalid_message_lifts_all_denials(limiters: Build, redis_url: str) -> None:
    """A message that cannot be parsed lifts all denials, because it may have been any reset."""
    limiter = await limiters(redis_url)
    for _ in range(4):
        await limiter.hit(SLOW, "ada")
    before = limiter._denials.get(SLOW, gcra.bucket_name(SLOW, "ada"), 1, 0)
    assert before is not None
    with pytest.raises(ValueError, match="bucket"):
        limiter.on_message(["a list"])
    limiter.on_gap()
    assert limiter._denials.get(SLOW, gcra.bucket_name(SLOW, "ada"), 1, 0) is None


async def test_decisions_are_counted(limiters: Build, redis_url: str, free_port: Callable[[], int]) -> None:
    """Each hit is counted by policy, outcome and degradation; the key is not a label."""
    registry, other = CollectorRegistry(), CollectorRegistry()
    limiter = await limiters(redis_url, registry=registry)
    for _ in range(5):
        await limiter.hit(SLOW, "ada")
        await limiter.peek(SLOW, "ada")
    alone = await limiters(f"redis://127.0.0.1:{free_port()}", live=False, registry=other)
    await alone.hit(SLOW, "ada")
    text = generate_latest(registry).decode()
    assert 'ratelimit_decisions_total{degraded="false",outcome="allowed",policy="slow"} 3.0' in text
    assert 'ratelimit_decisions_total{degraded="false",outcome="denied",policy="slow"} 2.0' in text
    assert (
        'ratelimit_decisions_total{degraded="true",outcome="allowed",policy="slow"} 1.0'
        in generate_latest(other).decode()
    )
    assert "ada" not in text

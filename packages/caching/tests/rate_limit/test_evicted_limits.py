"""Limits on a server that evicts buckets: each process continues from the state that it knows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.leases import now_us
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer

LOGIN = RatePolicy("login", 6, 3600)
ROUNDS = 40
POLICIES = ["volatile-ttl", "volatile-lru", "volatile-random", "allkeys-lru"]

Build = Callable[..., Awaitable[RedisRateLimiter]]


@pytest.fixture
async def redis(private_redis: ValkeyServer) -> AsyncIterator[Redis]:
    """Yield a client of this test's private server."""
    async with Redis.from_url(private_redis.url()) as redis:
        yield redis


async def fill(redis: Redis, number: int, ttl: int) -> None:
    """Write values until each one evicts others."""
    async with redis.pipeline(transaction=False) as pipe:
        for each in range(200):
            pipe.set(f"filler:{number}:{each}", b"x" * 8192, ex=ttl)
        await pipe.execute()


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("eviction", POLICIES)
async def test_an_evicted_bucket_continues_from_the_known_state(
    limiters: Build, private_redis: ValkeyServer, redis: Redis, eviction: str, processes: int
) -> None:
    """However often the server evicts buckets, each process keeps at least the bound of its own hits."""
    registries = [CollectorRegistry() for _ in range(processes)]
    started = [await limiters(private_redis.url(), registry=registry) for registry in registries]
    await redis.config_set("maxmemory", (await redis.info("memory"))["used_memory"] + 4 * 1024 * 1024)
    await redis.config_set("maxmemory-policy", eviction)
    await redis.config_set("maxmemory-samples", 64)
    decisions = []
    for number in range(ROUNDS):
        await fill(redis, number, ttl=86400)
        decisions += [await limiter.hit(LOGIN, ("client", number % 2)) for limiter in started]
    passed, degraded = [sum(getattr(each, name) for each in decisions) for name in ("allowed", "degraded")]
    evicted = (await redis.info("stats"))["evicted_keys"]
    name = "ratelimit_vanished_buckets_total"
    vanished = sum(registry.get_sample_value(name, {"policy": "login"}) or 0 for registry in registries)
    print(f"{eviction}, {processes}: {passed} of {len(decisions)} passed, {degraded=}, {evicted=}, {vanished=}")
    assert evicted
    assert vanished or passed == 12, "what was not evicted is counted as ever"
    assert 12 <= passed <= 12 * processes
    assert degraded == 0


async def test_the_known_state_counts_in_a_bucket_that_another_process_recreated(
    limiters: Build, private_redis: ValkeyServer, redis: Redis
) -> None:
    """What a process knows of an evicted bucket counts even if another process created the bucket again before it."""
    knowing, new = await limiters(private_redis.url()), await limiters(private_redis.url())
    for _ in range(4):
        await knowing.hit(LOGIN, "ada")
    await redis.flushdb()
    assert (await new.hit(LOGIN, "ada")).remaining == 5
    assert (await knowing.peek(LOGIN, "ada")).remaining == 2
    assert (await knowing.hit(LOGIN, "ada")).remaining == 1
    assert (await new.hit(LOGIN, "ada")).remaining == 0


async def test_a_reset_is_no_eviction(limiters: Build, private_redis: ValkeyServer, monkeypatch: Any) -> None:
    """A process that has not received a reset does not undo it with its known state."""
    registry = CollectorRegistry()
    one, other = await limiters(private_redis.url()), await limiters(private_redis.url(), registry=registry)
    for _ in range(4):
        await other.hit(LOGIN, "ada")
    monkeypatch.setattr(other, "on_message", lambda _: None)
    await one.reset(LOGIN, "ada")
    assert (await other.hit(LOGIN, "ada")).remaining == 5
    assert registry.get_sample_value("ratelimit_vanished_buckets_total", {"policy": "login"}) is None


async def test_a_bucket_that_becomes_empty_on_the_way_has_not_vanished(
    limiters: Build, private_redis: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that reaches the server after its bucket has become empty is not counted as a loss of the server."""
    registry, policy = CollectorRegistry(), RatePolicy("fast", 120, 60)
    limiter = await limiters(private_redis.url(), registry=registry)
    run, known = limiter._buckets.run, list[int]()

    async def run_late(budgets: Any, requests: Any) -> Any:
        known.append(requests[0].born)
        deadline = now_us() + 10_000_000
        while any(each.until > now_us() - 100_000 for each in limiter._known.values()):
            assert now_us() < deadline
            await asyncio.sleep(0.01)
        return await run(budgets, requests)

    await limiter.hit(policy, "ada")
    monkeypatch.setattr(limiter._buckets, "run", run_late)
    while not any(known):  # a busy machine may begin the request when nothing is known any more
        await limiter.hit(policy, "ada")
    assert registry.get_sample_value("ratelimit_vanished_buckets_total", {"policy": "fast"}) is None


async def test_leases_of_an_evicted_bucket_count_as_used(
    limiters: Build, private_redis: ValkeyServer, redis: Redis
) -> None:
    """Leases of an evicted bucket count as used, because processes may still spend them."""
    policy = RatePolicy("leased", 100, 3600, lease=30)
    limiter = await limiters(private_redis.url())
    passed = 0
    for number in range(300):
        if number % 20 == 0:
            await redis.flushdb()
        passed += (await limiter.hit(policy, "ada")).allowed
    assert 50 <= passed <= 100


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"maxmemory": "64mb", "maxmemory-policy": "volatile-ttl"}, ["volatile-ttl"]),
        ({"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}, ["allkeys-lru"]),
        ({"maxmemory": "64mb", "maxmemory-policy": "noeviction"}, []),
        ({"maxmemory": "0", "maxmemory-policy": "volatile-ttl"}, []),
    ],
)
async def test_a_server_that_evicts_is_logged_once(
    limiters: Build,
    private_redis: ValkeyServer,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    warnings: list[str],
) -> None:
    """A limiter that starts on a server that may evict buckets logs one warning."""
    for name, value in settings.items():
        await redis.config_set(name, value)
    limiter = await limiters(private_redis.url())
    for _ in range(3):
        await limiter.hit(LOGIN, "ada")
    said = [
        cast("Any", each).maxmemory_policy for each in caplog.records if each.message == "limiter_eviction_detected"
    ]
    assert said == warnings


async def test_eviction_is_logged_when_the_server_answers_later(
    limiters: Build, private_redis: ValkeyServer, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    """A limiter that starts before its server logs the warning at the first answer."""
    private_redis.kill()
    limiter = await limiters(private_redis.url(), live=False)
    private_redis.restart()
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.config_set("maxmemory", "64mb")
        await redis.config_set("maxmemory-policy", "allkeys-lfu")

    async def counted() -> bool:
        return not (await limiter.hit(LOGIN, "ada")).degraded

    await eventually(counted)
    assert [each.message for each in caplog.records].count("limiter_eviction_detected") == 1

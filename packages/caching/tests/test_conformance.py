"""The conformance suite, run against the fake and the real implementation."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tequipy_caching import CacheManager, RatePolicy
from tequipy_caching.conformance import (  # noqa: F401 -- collected here
    POLICIES,
    CacheTarget,
    LimiterTarget,
    TestInvalidation,
    TestLimits,
    TestLoads,
    TestProcesses,
    TestSets,
    TestValues,
)
from tequipy_caching.testing import MemoryCacheManager, MemoryRateLimiter


@pytest.fixture(params=["memory", "redis"])
async def cache_target(request: pytest.FixtureRequest, start: Any) -> AsyncIterator[CacheTarget]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        yield CacheTarget(lambda: start(url, policies=POLICIES))
        return
    manager = MemoryCacheManager(POLICIES)

    async def started() -> CacheManager:
        return manager

    async def turn(seconds: float) -> None:
        manager.clock.advance(seconds)
        await asyncio.sleep(0)

    async with manager:
        yield CacheTarget(started, shared=False, advance=turn)


@pytest.fixture(params=["memory", "redis"])
async def limiter_target(request: pytest.FixtureRequest, limiters: Any) -> LimiterTarget:
    if request.param == "redis":
        return LimiterTarget(await limiters(request.getfixturevalue("redis_url")))
    limiter = MemoryRateLimiter()

    async def turn(seconds: float) -> None:
        limiter.clock.advance(seconds)

    return LimiterTarget(limiter, turn)


async def test_the_fake_limiter_decides_without_redis() -> None:
    """With `unreachable`, the fake limiter decides as the real one does without Redis."""
    async with MemoryRateLimiter() as limiter:
        shut = RatePolicy("shut", 1, 60, on_store_error="deny")
        assert (await limiter.hit(shut, "ada")).allowed
        limiter.unreachable = True
        for policy, allowed in ((shut, False), (RatePolicy("local", 1, 60), True)):
            decision = await limiter.hit(policy, "ada")
            assert (decision.allowed, decision.degraded) == (allowed, True)


async def test_the_fake_reads_sources_at_the_start() -> None:
    """Sets created before the fake manager is entered are live at once, as soon after the start of a process."""

    async def source() -> dict[str, float]:
        return {"ada": 60}

    manager = MemoryCacheManager()
    revoked = manager.expiring_set("revoked", source=source)
    async with manager:
        assert revoked.live
        assert "ada" in revoked


async def test_the_fake_keeps_its_content_when_closed() -> None:
    """The content of the fake outlives its context, so that a test can inspect it."""
    manager: Any = MemoryCacheManager(POLICIES)
    async with manager:
        await manager.cache("words", str).set("ada", "Ada")
    async with manager:
        assert await manager.cache("words", str).get("ada") == "Ada"

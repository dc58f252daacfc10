"""The promises, on the fake and on the real tiers alike."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tequipy_caching import CacheManager
from tequipy_caching.conformance import (  # noqa: F401 -- collected here
    POLICIES,
    CacheTarget,
    TestInvalidation,
    TestLoads,
    TestProcesses,
    TestValues,
)
from tequipy_caching.testing import MemoryCacheManager


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
        yield CacheTarget(started, shared=False, turn=turn)


async def test_the_fake_is_entered_twice() -> None:
    """What the fake holds outlives its context, so that a test may look at it."""
    manager: Any = MemoryCacheManager(POLICIES)
    async with manager:
        await manager.cache("words", str).set("ada", "Ada")
    async with manager:
        assert await manager.cache("words", str).get("ada") == "Ada"

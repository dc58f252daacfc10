"""What every expiring set promises, on the fake and on Redis alike."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tequipy_caching import CacheManager
from tequipy_caching.testing import MemoryCacheManager
from tequipy_caching.wiring import CacheSettings, build_cache

Pass = Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
def manager(request: pytest.FixtureRequest, redis_prefix: str) -> CacheManager:
    if request.param == "memory":
        return MemoryCacheManager()
    return build_cache(CacheSettings(url=request.getfixturevalue("redis_url"), prefix=redis_prefix))


@pytest.fixture
def let_pass(manager: CacheManager) -> Pass:
    """Return what lets time pass."""

    async def let_pass(seconds: float) -> None:
        if isinstance(manager, MemoryCacheManager):
            manager.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    return let_pass


async def test_members_are_members_until_their_time_is_over(
    manager: CacheManager, let_pass: Pass, eventually: Any
) -> None:
    """A member counts at once and leaves by itself; others never were."""
    revoked = manager.expiring_set("revoked")
    async with manager:
        await revoked.add("ada", "bob", ttl=0.2)
        await revoked.add("eve", ttl=60)
        await revoked.add(ttl=60)
        assert [member in revoked for member in ("ada", "bob", "eve", "dan")] == [True, True, True, False]
        assert [await revoked.contains(member) for member in ("ada", "dan")] == [True, False]
        await let_pass(0.2)
        await eventually(lambda: "ada" not in revoked)
        assert not await revoked.contains("bob")
        assert "eve" in revoked
        assert 1 not in revoked


async def test_adding_again_keeps_the_longer_life(manager: CacheManager, let_pass: Pass) -> None:
    """A second life counts only if it ends later."""
    revoked = manager.expiring_set("revoked")
    async with manager:
        await revoked.add("ada", ttl=60)
        await revoked.add("ada", ttl=0.05)
        await revoked.add("bob", ttl=0.05)
        await revoked.add("bob", ttl=60)
        await let_pass(0.1)
        assert ("ada" in revoked, "bob" in revoked) == (True, True)


async def test_the_source_is_read_at_the_start(manager: CacheManager, eventually: Any) -> None:
    """A set with a source is live once that is read, and what it knows are members."""

    async def source() -> dict[str, float]:
        return {"ada": 60, "old": -5}

    revoked = manager.expiring_set("revoked", source=source)
    assert not revoked.live
    async with manager:
        await eventually(lambda: revoked.live)
        assert ("ada" in revoked, "old" in revoked, "bob" in revoked) == (True, False, False)
    late = manager.expiring_set("late", source=source)
    async with manager:
        assert await late.contains("ada")


async def test_wrong_use_of_a_set_is_named(manager: CacheManager) -> None:
    """A name is one set with one source; names and lives that are none are refused."""
    revoked = manager.expiring_set("revoked")
    assert manager.expiring_set("revoked") is revoked

    async def source() -> dict[str, float]:
        return {}

    with pytest.raises(ValueError, match="has another source"):
        manager.expiring_set("revoked", source=source)
    with pytest.raises(ValueError, match="name must be"):
        manager.expiring_set("a:b")
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl"):
            await revoked.add("ada", ttl=ttl)

"""Joining a load while the channel is cut: allowed only if the key has not changed since the load began."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import Cache
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.cache.keys import Key


@pytest.fixture
async def cut(
    start: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> tuple[TieredCacheManager, TieredCacheManager]:
    """Yield a process whose channel is cut, and a connected one."""
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 600)
    alone, other = await start(redis_url), await start(redis_url)
    async with Redis.from_url(redis_url) as redis:
        for client in await redis.client_list(_type="pubsub"):
            await redis.client_kill_filter(_id=client["id"])
    await eventually(lambda: not alone.backplane.live)
    return alone, other


CHANGES: dict[str, Callable[[Cache[str], int], Awaitable[None]]] = {
    "delete": lambda words, key: words.delete(key),
    "set": lambda words, key: words.set(key, "new"),
    "tag": lambda words, _: words.delete_by_tag("team"),
    "clear": lambda words, _: words.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_no_caller_joins_a_load_from_before_a_change(
    cut: tuple[TieredCacheManager, TieredCacheManager], factory: Any, change: str
) -> None:
    """A caller gets the new value while the load that began before the change goes on for its own caller."""
    alone, other = (manager.cache("words", str) for manager in cut)
    joined, old_loads = 0, []
    for number in range(20):
        old = factory("old", held=True)
        first = asyncio.create_task(alone.get_or_set(number, old, tags=["team"]))
        old_loads.append((old, first))
        await old.called()
        await CHANGES[change](other, number)
        second = asyncio.create_task(alone.get_or_set(number, factory("new"), tags=["team"]))
        done, _ = await asyncio.wait({second}, timeout=2)
        joined += not done
        if not done:
            second.cancel()
        else:
            assert second.result() == "new"
        if joined > 2:
            break
    for old, first in old_loads:
        old.go.set()
        assert await first == "old"
    print(f"{change}: {joined} of {len(old_loads)} joined a load from before it")
    assert joined == 0


async def test_callers_join_a_load_of_an_unchanged_key(
    cut: tuple[TieredCacheManager, TieredCacheManager], factory: Any
) -> None:
    """While the state in Redis is unchanged, a cut channel causes no additional load."""
    words = cut[0].cache("words", str)
    load = factory("value", held=True)
    first = asyncio.create_task(words.get_or_set("ada", load, tags=["team"]))
    await load.called()
    others = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(50)]
    await asyncio.wait(others, timeout=0.2)
    load.go.set()
    assert await asyncio.gather(first, *others) == ["value"] * 51
    assert load.calls == 1


async def test_no_caller_joins_a_batch_that_has_found_its_key(
    cut: tuple[TieredCacheManager, TieredCacheManager], factory: Any
) -> None:
    """A caller gets the new value of a key that a batch found in Redis before a change, while the batch goes on."""
    alone, other = (manager.cache("words", str) for manager in cut)
    await other.set("found", "old")
    called, go = asyncio.Event(), asyncio.Event()

    async def load(keys: Sequence[Key]) -> dict[Key, str]:
        called.set()
        await go.wait()
        return dict.fromkeys(keys, "loaded")

    batch = asyncio.create_task(alone.get_or_set_many(["found", "missing"], load))
    await called.wait()
    follower = asyncio.create_task(alone.get_or_set("missing", factory("another")))
    await other.delete("found")
    second = asyncio.create_task(alone.get_or_set("found", factory("new")))
    done, _ = await asyncio.wait({second}, timeout=2)
    go.set()
    assert await batch == {"found": "old", "missing": "loaded"}
    assert await follower == "loaded"
    assert done
    assert await second == "new"


async def test_no_caller_joins_a_load_of_a_cache_without_l2(
    cut: tuple[TieredCacheManager, TieredCacheManager], factory: Any
) -> None:
    """Redis has no states of a cache that is in L1 only, so callers start their own loads while the channel is cut."""
    alone, other = (manager.cache("local", str) for manager in cut)
    old = factory("old", held=True)
    first = asyncio.create_task(alone.get_or_set("ada", old))
    await old.called()
    await other.delete("ada")
    second = asyncio.create_task(alone.get_or_set("ada", factory("new")))
    done, _ = await asyncio.wait({second}, timeout=2)
    old.go.set()
    assert await first == "old"
    assert done
    assert await second == "new"

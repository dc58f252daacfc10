"""Lookups leave marks and stores require them, so that a vanished key is not taken for one that never existed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import MISSING
from tequipy_devstack.servers import ValkeyServer


async def unlink(redis: Redis, key: str, _: str) -> None:
    await redis.unlink(key)


async def expire_early(redis: Redis, key: str, _: str) -> None:
    """Expire a key early, as a step of the server's clock or a shorter `tombstone_ttl` does."""
    await redis.pexpire(key, 1)
    while await redis.exists(key):
        await asyncio.sleep(0.001)


async def forget_all(redis: Redis, key: str, state: str) -> None:
    await redis.delete(key, state)


Loss = Callable[[Redis, str, str], Awaitable[None]]


@pytest.mark.parametrize("lose", [unlink, expire_early, forget_all])
async def test_no_old_value_is_stored_after_a_lost_tombstone(
    start: Any, redis_url: str, factory: Any, lose: Loss, eventually: Any
) -> None:
    """A load that began before a delete stores nothing after its tombstone is lost, in L2 or in any L1."""
    loading, deleting = [await start(redis_url) for _ in range(2)]
    words = loading.cache("words", str)
    stale = 0
    async with Redis.from_url(redis_url) as redis:
        for number in range(20):
            load = factory("old", held=True)
            asked = asyncio.create_task(words.get_or_set(number, load))
            await load.called()
            await deleting.cache("words", str).delete(number)
            (name,) = await redis.keys(f"{loading.link.prefix}:cache:words:*")
            await lose(redis, str(name, "utf-8") if isinstance(name, bytes) else name, loading.link.state)
            load.go.set()
            assert await asked == "old"
            stale += await deleting.cache("words", str).get(number) is not None
            await eventually(lambda number=number: words.peek(number) is MISSING)
            await redis.unlink(name)
    print(f"{lose.__name__}: {stale} of 20 loads stored the old value")
    assert stale == 0


async def test_a_value_without_its_mark_is_stored_in_l1_only(start: Any, redis_url: str, factory: Any) -> None:
    """If its mark is lost, a value is stored in L1 only: the key may have been deleted, but no delete was received."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    load = factory("value", held=True)
    asked = asyncio.create_task(words.get_or_set("ada", load))
    await load.called()
    async with Redis.from_url(redis_url) as redis:
        (mark,) = await redis.keys(f"{manager.link.prefix}:cache:*")
        await redis.unlink(mark)
        load.go.set()
        assert await asked == "value"
        assert words.peek("ada") == "value"
        assert not await redis.exists(mark)


async def test_only_lookups_that_may_store_leave_marks(start: Any, redis_url: str, factory: Any) -> None:
    """`get` and `get_many` write nothing, and a mark expires when its load can no longer be running."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    async with Redis.from_url(redis_url) as redis:
        await words.get("ada")
        await words.get_many(["ada", "bob"])
        assert await redis.keys(f"{manager.link.prefix}:cache:*") == []

        async def fail() -> str:
            raise LookupError

        with pytest.raises(LookupError):
            await words.get_or_set("ada", fail)
        (mark,) = await redis.keys(f"{manager.link.prefix}:cache:*")
        assert 0 < await redis.pttl(mark) <= 16_000
        assert await words.get("ada") is None
        assert await words.get_or_set("ada", factory("value")) == "value"
        assert await (await start(redis_url)).cache("words", str).get("ada") == "value"


async def test_a_tombstone_lives_as_long_as_a_load_that_saw_it(start: Any, redis_url: str, factory: Any) -> None:
    """A load that finds a tombstone shortly before its expiry still finds it at the store."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    await words.delete("ada")
    load = factory("value", held=True)
    async with Redis.from_url(redis_url) as redis:
        (name,) = await redis.keys(f"{manager.link.prefix}:cache:*")
        await redis.pexpire(name, 500)
        asked = asyncio.create_task(words.get_or_set("ada", load))
        await load.called()
        assert await redis.pttl(name) > 5000
        load.go.set()
        assert await asked == "value"
        assert await redis.strlen(name) > 24


async def test_a_refused_mark_hides_no_value(start: Any, private_redis: ValkeyServer) -> None:
    """If memory is too full for marks, a batch still returns the values and tags in Redis and loads the rest."""
    manager = await start(private_redis.url())
    words = manager.cache("remote", str)
    await words.set("there", "stored", tags=["team"])
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.config_set("maxmemory", 1)
    loaded: list[Any] = []

    async def load(keys: Sequence[Any]) -> dict[Any, str]:
        loaded.extend(keys)
        return dict.fromkeys(keys, "loaded")

    found = await words.get_or_set_many(["absent", "there", "gone"], load, tags=["team"])
    assert found == {"absent": "loaded", "there": "stored", "gone": "loaded"}
    assert loaded == ["absent", "gone"]

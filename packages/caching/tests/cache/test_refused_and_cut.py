"""Redis refuses writes while the channel of a process is cut, so that the process does not receive refused changes."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import MISSING
from tequipy_caching._manager import TieredCacheManager
from tequipy_devstack.servers import ValkeyServer


async def cut(manager: TieredCacheManager, redis: Redis, eventually: Any) -> None:
    """Cut the channel of the only connected process."""
    for client in await redis.client_list(_type="pubsub"):
        await redis.client_kill_filter(_id=client["id"])
    await eventually(lambda: not manager.backplane.live)


async def test_a_disconnected_process_reads_nothing_from_a_redis_that_refuses_writes(
    start: Any, private_redis: ValkeyServer, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """A disconnected process uses no value of a Redis that refuses writes: it does not know the refused deletes."""
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 600)
    alone = await start(private_redis.url())
    async with Redis.from_url(private_redis.url()) as redis:
        words = alone.cache("words", str)
        for number in range(20):
            await words.set(number, "old")
        await cut(alone, redis, eventually)
        other = await start(private_redis.url())
        await redis.config_set("min-replicas-to-write", 1)
        stale = 0
        for number in range(20):
            await other.cache("words", str).delete(number)
            stale += await words.get(number) is not None
        print(f"{stale} of 20 reads were old")
        assert stale == 0
        assert alone.health().l2 == "refusing"


async def test_no_caller_joins_a_load_from_before_a_refused_delete(
    start: Any, private_redis: ValkeyServer, monkeypatch: pytest.MonkeyPatch, eventually: Any, factory: Any
) -> None:
    """A disconnected caller starts its own load: an unchanged state in Redis is no proof while writes are refused."""
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 600)
    alone = await start(private_redis.url())
    async with Redis.from_url(private_redis.url()) as redis:
        words = alone.cache("words", str)
        await cut(alone, redis, eventually)
        other = await start(private_redis.url())
        old = factory("old", held=True)
        first = asyncio.create_task(words.get_or_set("ada", old))
        await old.called()
        await redis.config_set("min-replicas-to-write", 1)
        await other.cache("words", str).delete("ada")
        second = asyncio.create_task(words.get_or_set("ada", factory("new")))
        done, _ = await asyncio.wait({second}, timeout=2)
        old.go.set()
        assert await first == "old"
        assert done
        assert await second == "new"


async def test_refused_changes_are_replayed_when_a_process_joins(
    start: Any, private_redis: ValkeyServer, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """A refused delete is replayed at once when another process joins the channel."""
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 2)
    monkeypatch.setattr("tequipy_caching.redis.circuit_breaker.FIRST_PAUSE", 600)
    away = await start(private_redis.url())
    async with Redis.from_url(private_redis.url()) as redis:
        words = away.cache("words", str)
        await words.set("ada", "old")
        await cut(away, redis, eventually)
        other = await start(private_redis.url())
        await redis.config_set("min-replicas-to-write", 1)
        await other.cache("words", str).delete("ada")
        await redis.config_set("min-replicas-to-write", 0)
        await eventually(lambda: away.backplane.live)
        await eventually(lambda: words.peek("ada") is MISSING, 5)
        assert await words.get("ada") is None

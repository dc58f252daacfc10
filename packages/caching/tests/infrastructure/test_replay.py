"""What could not reach Redis is kept, makes Redis doubtful meanwhile, and is sent later."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tequipy_caching import MISSING, CacheHealth
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer


async def test_what_waits_makes_redis_doubtful(start: Any, private_redis: ValkeyServer, factory: Any) -> None:
    """A key whose delete did not reach Redis is not read from there, though Redis answers."""
    manager = await start(private_redis.url())
    words = manager.cache("remote", str)
    for key in ("deleted", "tagged", "other"):
        await words.set(key, "old", tags=["team"] if key == "tagged" else [])
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]  # -- redis-py's own
    await words.delete("deleted")
    await words.delete_by_tag("team")
    assert manager.health().l2 == "refusing"
    assert manager.health().recovery_queue == 2
    assert await words.get_many(["deleted", "tagged", "other"]) == {"other": "old"}
    assert await words.get_or_set("deleted", factory("new")) == "new"
    await words.clear()
    assert await words.get_many(["deleted", "tagged", "other"]) == {}


async def test_a_full_queue_becomes_one_clear(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """More deletes than are kept are one clear: nothing of the cache is served any more, by no process."""
    manager, other = [await start(private_redis.url(), l2_timeout=0.25) for _ in range(2)]
    manager.link.recovery._limit = 10
    words, others = manager.cache("words", str), other.cache("words", str)
    for number in range(20):
        await others.set(number, "old")
    private_redis.freeze()
    await words.delete(*range(20))
    assert manager.health().recovery_queue <= 10
    private_redis.thaw()
    await eventually(lambda: manager.health() == other.health() == CacheHealth("up", "live", 0))
    await eventually(lambda: others.peek(19) is MISSING)  # the message is on its way
    assert await others.get_many(range(20)) == {}


async def test_however_many_tags_are_replayed(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """More tags than Lua's stack holds reach Redis in one step, and keep nothing that waits from it."""
    manager = await start(private_redis.url(), l2_timeout=0.25)
    words = manager.cache("words", str)
    await words.set("ada", "old", tags=["8999"])
    private_redis.freeze()
    await words.delete_by_tag(*map(str, range(9000)))
    assert manager.health().recovery_queue == 9000
    private_redis.thaw()
    await eventually(lambda: manager.health() == CacheHealth("up", "live", 0))
    assert await words.get("ada") is None


async def test_a_delete_whose_caller_leaves_is_made(
    start: Any, private_redis: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """A caller that is cancelled while Redis is asked may have deleted or not: it is done again."""
    manager, other = await start(proxy_url, l2_timeout=5), await start(private_redis.url())
    await other.cache("words", str).set("ada", "old")
    proxy.delay = 0.2
    deleting = asyncio.create_task(manager.cache("words", str).delete("ada"))
    await asyncio.sleep(0.05)
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    proxy.delay = 0
    assert manager.health().recovery_queue == 1
    await eventually(lambda: manager.health().recovery_queue == 0)
    await eventually(lambda: other.cache("words", str).peek("ada") is MISSING)  # the message is on its way
    assert await other.cache("words", str).get("ada") is None


async def test_what_waits_is_sent_at_the_end(
    start: Any, private_redis: ValkeyServer, policies: Any, eventually: Any
) -> None:
    """A process that ends in order makes a last attempt to replay what it has kept."""
    other = await start(private_redis.url(), prefix="end")
    await other.cache("words", str).set("ada", "old")
    settings = CacheSettings(url=SecretStr(private_redis.url()), prefix="end", policies=policies)
    async with build_cache(settings) as manager:
        private_redis.freeze()
        await manager.cache("words", str).delete("ada")
        private_redis.thaw()
    await eventually(lambda: other.cache("words", str).peek("ada") is MISSING)  # the message is on its way
    assert await other.cache("words", str).get("ada") is None

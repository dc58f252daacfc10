"""Changes that could not reach Redis are kept and sent later; until then Redis is not used for their keys."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tequipy_caching import MISSING, CacheHealth
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer


async def test_a_key_with_a_pending_delete_is_not_read_from_redis(
    start: Any, private_redis: ValkeyServer, factory: Any
) -> None:
    """A key with a pending delete is not read from Redis, although Redis answers."""
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
    """More deletes than the queue holds become one clear: no process serves a value of the cache from before."""
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
    await eventually(lambda: others.peek(19) is MISSING)  # the message is in transit
    assert await others.get_many(range(20)) == {}


async def test_many_tags_are_replayed(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """More tags than Lua's stack holds are replayed in one step, and do not block other pending changes."""
    manager = await start(private_redis.url(), l2_timeout=0.25)
    words = manager.cache("words", str)
    await words.set("ada", "old", tags=["8999"])
    private_redis.freeze()
    await words.delete_by_tag(*map(str, range(9000)))
    assert manager.health().recovery_queue == 9000
    private_redis.thaw()
    await eventually(lambda: manager.health() == CacheHealth("up", "live", 0))
    assert await words.get("ada") is None


async def test_a_cancelled_delete_is_repeated(
    start: Any, private_redis: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """A delete whose caller is cancelled is repeated, because it may not have been executed."""
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
    await eventually(lambda: other.cache("words", str).peek("ada") is MISSING)  # the message is in transit
    assert await other.cache("words", str).get("ada") is None


async def test_pending_changes_are_sent_at_the_end(
    start: Any, private_redis: ValkeyServer, policies: Any, eventually: Any
) -> None:
    """A manager that is closed makes a last attempt to replay its queue."""
    other = await start(private_redis.url(), prefix="end")
    await other.cache("words", str).set("ada", "old")
    settings = CacheSettings(url=SecretStr(private_redis.url()), prefix="end", policies=policies)
    async with build_cache(settings) as manager:
        private_redis.freeze()
        await manager.cache("words", str).delete("ada")
        private_redis.thaw()
    await eventually(lambda: other.cache("words", str).peek("ada") is MISSING)  # the message is in transit
    assert await other.cache("words", str).get("ada") is None

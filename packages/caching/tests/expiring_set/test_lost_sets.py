"""Sets whose key Redis has lost: no process is live before all have added their members again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_devstack.servers import ValkeyServer

Start = Callable[..., Awaitable[tuple[TieredCacheManager, SharedExpiringSet]]]


async def unlink(redis: Redis, key: str) -> None:
    assert await redis.unlink(key)


async def flush(redis: Redis, _: str) -> None:
    await redis.flushall()


async def evict(redis: Redis, key: str) -> None:
    """Have the server evict all of its keys."""
    await redis.config_set("maxmemory-policy", "allkeys-random")
    await redis.config_set("maxmemory", 1)
    with pytest.raises(Exception, match="memory"):
        await redis.set("filler", "x")
    await redis.config_set("maxmemory", 0)
    assert not await redis.exists(key)


Loss = Callable[[Redis, str], Awaitable[None]]


@pytest.fixture
def real_times(open_set: Start, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Open sets that wait for other processes as long as in production."""
    monkeypatch.setattr("tequipy_caching.expiring_set.shared_set.OTHERS_WITHIN", 2.0)
    return open_set


async def test_no_set_is_live_without_members_of_other_processes(
    real_times: Start, eventually: Any, tmp_path: Path
) -> None:
    """Every process, started before or after the loss, knows all members as soon as its set is live."""
    with ExitStack() as stack:  # each loss happens on a server of its own, all at the same time
        losses = {stack.enter_context(ValkeyServer(tmp_path / lose.__name__)): lose for lose in (unlink, flush, evict)}
        checks = [lose_members(lose, server.url(), real_times, eventually) for server, lose in losses.items()]
        await asyncio.gather(*checks)


async def lose_members(lose: Loss, url: str, real_times: Start, eventually: Any) -> None:
    """Lose the set of two processes, start a third, and check that its set is live only with their members."""
    (_, one), (_, other) = [await real_times(url) for _ in range(2)]
    await one.add("ada", ttl=600)
    await eventually(lambda: "ada" in other)
    wrong = lookups = 0
    async with Redis.from_url(url) as redis:
        await lose(redis, one.key)
        _, late = await real_times(url, live=False)
        ends = asyncio.get_running_loop().time() + 4
        while asyncio.get_running_loop().time() < ends:
            lookups += 1
            wrong += late.live and "ada" not in late
            await asyncio.sleep(0.01)
        print(f"{lose.__name__}: live and wrong {wrong} of {lookups} times")
        assert wrong == 0
        assert late.live
        assert await redis.zscore(one.key, "ada")


async def test_a_lost_set_is_detected_and_not_live(
    real_times: Start, private_redis: ValkeyServer, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An idle set detects within two seconds that Redis has lost it, is not live, and is live again later."""
    _, one = await real_times(private_redis.url())
    async with Redis.from_url(private_redis.url()) as redis:
        await unlink(redis, one.key)
        await eventually(lambda: not one.live, 5)
        assert "expiring_set_lost" in caplog.text
        await eventually(lambda: one.live)
        assert await redis.exists(one.key)


async def test_add_detects_a_lost_set(
    open_set: Start,
    redis_url: str,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`add` to a set that Redis has lost creates it again, with all members that this process knows."""
    monkeypatch.setattr("tequipy_caching.expiring_set.sets.CHECK_EVERY", 600)
    _, one = await open_set(redis_url)
    await one.add("ada", ttl=600)
    async with Redis.from_url(redis_url) as redis:
        await unlink(redis, one.key)
        await one.add("bob", ttl=600)
        await eventually(lambda: "expiring_set_lost" in caplog.text and one.live)
        assert await redis.zscore(one.key, "ada")


async def test_the_source_of_a_lost_set_is_read_again(real_times: Start, redis_url: str, eventually: Any) -> None:
    """The members of the source are added before the set is live again."""
    members = {"ada": 600.0}

    async def read() -> dict[str, float]:
        return members

    _, one = await real_times(redis_url, read)
    members["bob"] = 600.0
    async with Redis.from_url(redis_url) as redis:
        await unlink(redis, one.key)
        await eventually(lambda: not one.live, 5)
        await eventually(lambda: one.live)
        assert "bob" in one


async def test_a_set_of_the_previous_version_is_kept(open_set: Start, redis_url: str) -> None:
    """A set of the previous version, without a sentinel and with a ttl, gets a sentinel and stays."""
    async with Redis.from_url(redis_url) as redis:
        _, first = await open_set(redis_url)
        await redis.delete(first.key)
        seconds, microseconds = await redis.time()
        await redis.zadd(first.key, {"ada": seconds * 1000 + microseconds // 1000 + 600_000})
        await redis.pexpire(first.key, 600_000)
        _, late = await open_set(redis_url)
        assert "ada" in late
        assert await redis.ttl(first.key) == -1

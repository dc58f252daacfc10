"""The databases of one server are independent, although they share its channels."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer

SLOW = RatePolicy("slow", 3, 3600)

OpenSet = Callable[..., Awaitable[Any]]


@pytest.fixture
def other_url(redis_server: ValkeyServer) -> str:
    """Return the URL of the next database of the same server."""
    return redis_server.url(1)


async def test_a_set_stays_in_its_database(
    open_set: OpenSet, redis_url: str, other_url: str, redis_prefix: str, eventually: Any
) -> None:
    """A member added in database 1 reaches other processes of that database, and nothing of database 0."""
    (_, here), (_, also_here) = await open_set(redis_url), await open_set(redis_url)
    (_, there), (_, also_there) = await open_set(other_url), await open_set(other_url)
    await there.add("foreign", ttl=600)
    await eventually(lambda: "foreign" in also_there)
    await also_here.add("own", ttl=600)  # if both databases had one channel, it would arrive after the other one
    await eventually(lambda: "own" in here and here.live)
    async with Redis.from_url(redis_url) as redis:
        # The sentinel of the set has a higher score than any member.
        written = await redis.zrangebyscore(f"{redis_prefix}:set:revoked", 0, 2**53 - 2)
    print(f"in memory: {'foreign' in here}, written: {written}")
    assert "foreign" not in here
    assert b"own" in written
    assert b"foreign" not in written


async def test_a_delete_stays_in_its_database(start: Any, redis_url: str, other_url: str, eventually: Any) -> None:
    """Deletes and clears in database 1 do not affect what a process holds of database 0."""
    here, also_here, there = [await start(url) for url in (redis_url, redis_url, other_url)]
    words, others = here.cache("words", str), here.cache("others", str)
    for cache in (words, others):
        await cache.set("ada", "Ada")
    await there.cache("words", str).delete("ada")
    await there.cache("others", str).clear()
    await others.set("bob", "Bob")
    await also_here.cache("others", str).delete("bob")
    await eventually(lambda: not others.peek("bob"))
    assert (words.peek("ada"), others.peek("ada")) == ("Ada", "Ada")


async def test_limits_stay_in_their_database(
    limiters: Callable[..., Awaitable[RedisRateLimiter]], redis_url: str, other_url: str, eventually: Any
) -> None:
    """Hits in database 1 do not count in database 0, and a reset there does not lift a denial remembered here."""
    here, also_here, there = [await limiters(url) for url in (redis_url, redis_url, other_url)]
    for key in ("ada", "bob"):
        for _ in range(4):
            await here.hit(SLOW, key)
    assert (await there.hit(SLOW, "ada")).remaining == 2
    await there.reset(SLOW, "ada")
    await also_here.reset(SLOW, "bob")

    async def lifted() -> bool:
        return (await here.peek(SLOW, "bob")).allowed

    await eventually(lifted)
    async with Redis.from_url(redis_url) as redis:  # Redis would allow it, if the limiter asked again
        await redis.flushdb()
    assert not (await here.peek(SLOW, "ada")).allowed

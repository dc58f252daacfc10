"""Large values, deletes and sets are transferred in parts: the breaker stays closed, and nothing blocks long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tequipy_caching import CachePolicy
from tequipy_devstack.servers import ValkeyServer

MIB = 1024 * 1024
READERS = 20
L2_TIMEOUT = 2
"""A busy machine is no outage; the usual 0.25 s are for a quiet one."""


class Durations:
    """The duration of a block, and the longest event loop step and Redis command in it, in seconds."""

    total = 0.0
    loop = 0.0
    redis = 0.0

    def __str__(self) -> str:
        return f"total {self.total:.3f} s, longest step {self.loop:.3f} s, Redis command {self.redis:.3f} s"


@asynccontextmanager
async def watched(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Durations]:
    """Measure the longest event loop step and Redis command, and fail if the breaker opens."""
    durations, done = Durations(), asyncio.Event()

    async def turn() -> None:
        while not done.is_set():
            began = monotonic()
            await asyncio.sleep(0)
            durations.loop = max(durations.loop, monotonic() - began)

    async with Redis.from_url(server.url()) as redis:
        await redis.config_set("slowlog-log-slower-than", 0)
        await redis.config_set("slowlog-max-len", 100_000)
        await redis.slowlog_reset()
        turning = asyncio.create_task(turn())
        began = monotonic()
        yield durations
        durations.total = monotonic() - began
        done.set()
        await turning
        entries = cast("Any", await redis.slowlog_get(-1))
        durations.redis = max(each["duration"] for each in entries if b"SLOWLOG" not in each["command"]) / 1_000_000
    assert "cache_breaker_opened" not in [each.message for each in caplog.records]


async def test_large_values_keep_the_breaker_closed(
    start: Any, private_redis: ValkeyServer, policies: dict[str, CachePolicy], caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty concurrent readers of 10 MiB get their values, small reads succeed, and the breaker stays closed."""
    policies["large"] = CachePolicy(ttl=60, tiers="l2", max_value_bytes=16 * MIB)
    manager = await start(private_redis.url(), l2_timeout=L2_TIMEOUT)
    large, remote = manager.cache("large", str), manager.cache("remote", str)
    value = "x" * (10 * MIB)
    small = [0, 0]
    await remote.set("small", "small")

    async def read_small(reading: asyncio.Future[Any]) -> None:
        while not reading.done():
            small[await remote.get("small") == "small"] += 1
            await asyncio.sleep(0)

    async with watched(private_redis, caplog) as durations:
        for number in range(READERS):
            await large.set(number, value)
        reading = asyncio.gather(*(large.get(number) for number in range(READERS)))
        await read_small(reading)
        found = await reading
    print(f"{found.count(value)} of {READERS} found, {small[True]} small ones, {small[False]} of these not found")
    print(durations)
    assert found.count(value) == READERS
    assert small[False] == 0
    assert manager.health().l2 == "up"


async def test_a_slow_large_response_is_awaited(
    start: Any, proxy: Any, proxy_url: str, policies: dict[str, CachePolicy]
) -> None:
    """A response that takes longer than `l2_timeout` is not an outage while parts of it arrive."""
    policies["large"] = CachePolicy(ttl=60, tiers="l2", max_value_bytes=16 * MIB)
    manager = await start(proxy_url, l2_timeout=L2_TIMEOUT)
    large = manager.cache("large", str)
    await large.set("ada", "x" * MIB)
    proxy.delay = L2_TIMEOUT / 10  # delay of each 64 KiB
    assert await large.get("ada") == "x" * MIB
    assert manager.health().l2 == "up"


@pytest.mark.parametrize(
    "deleted", [pytest.param(60_000, id="short"), pytest.param(200_000, id="long", marks=pytest.mark.prove)]
)
async def test_many_keys_are_deleted_in_parts(
    start: Any,
    private_redis: ValkeyServer,
    caplog: pytest.LogCaptureFixture,
    eventually: Callable[..., Awaitable[None]],
    deleted: int,
) -> None:
    """A delete of many keys reaches Redis and another process, meanwhile calls are served, no breaker opens."""
    one, other = [await start(private_redis.url(), l2_timeout=L2_TIMEOUT) for _ in range(2)]
    keys = [f"user {number}" for number in range(deleted)]
    await one.cache("words", str).set(keys[-1], "old")
    assert await other.cache("words", str).get(keys[-1]) == "old"
    async with watched(private_redis, caplog) as durations:
        await one.cache("words", str).delete(*keys)
    print(durations)
    assert max(durations.loop, durations.redis) < durations.total / 5
    assert one.health().recovery_queue == 0
    await eventually(lambda: not other.cache("words", str).peek(keys[-1]))
    assert await other.cache("words", str).get(keys[-1]) is None


@pytest.mark.parametrize(
    "size", [pytest.param(100_000, id="short"), pytest.param(300_000, id="long", marks=pytest.mark.prove)]
)
async def test_a_large_set_keeps_the_breaker_closed(
    open_set: Any,
    private_redis: ValkeyServer,
    caplog: pytest.LogCaptureFixture,
    eventually: Callable[..., Awaitable[None]],
    size: int,
) -> None:
    """A set of many members can be extended, received, and read by a later process."""
    (manager, one), (_, other) = [await open_set(private_redis.url(), l2_timeout=L2_TIMEOUT) for _ in range(2)]
    members = [f"session {number}" for number in range(size)]
    async with watched(private_redis, caplog) as durations:
        await one.add(*members, ttl=600)
        await eventually(lambda: members[-1] in other and other.live)
        _, third = await open_set(private_redis.url(), l2_timeout=L2_TIMEOUT)
        await eventually(lambda: third.live, 60)
    print(durations)
    assert max(durations.loop, durations.redis) < durations.total / 5
    assert manager.health().recovery_queue == 0
    missing = [sum(member not in each for member in members) for each in (one, other, third)]
    assert missing == [0, 0, 0]


async def test_a_failed_delete_in_parts_is_kept_completely(start: Any, free_port: Callable[[], int]) -> None:
    """With `on_error="raise"`, a delete of many keys raises at its first part and keeps all keys to be replayed."""
    manager = await start(f"redis://127.0.0.1:{free_port()}", live=False, on_error="raise")
    words = manager.cache("words", str)
    with pytest.raises(Exception, match="Redis"):
        await words.delete(*range(2500))
    assert manager.health().recovery_queue == 2500

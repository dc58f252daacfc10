"""A manager can be closed during any operation, and started again."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from tequipy_caching import CacheHealth, RatePolicy
from tequipy_caching.wiring import CacheSettings, build_cache, build_rate_limiter
from tequipy_devstack.servers import ValkeyServer


async def test_a_manager_closes_at_any_moment(redis_url: str, redis_prefix: str) -> None:
    """A manager closes even while it connects, where redis-py swallows some cancellations."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix)

    async def close_after(turns: int) -> None:
        async with asyncio.timeout(10), build_cache(settings):
            for _ in range(turns):
                await asyncio.sleep(0)

    for turns in range(30):
        await asyncio.gather(*(close_after(turns) for _ in range(5)))


async def test_a_stopped_channel_that_fails_to_connect_is_no_fault_of_the_server(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If redis-py turns the cancellation of a connecting channel into an error, closing logs nothing."""
    connecting = asyncio.Event()

    async def fail_when_cancelled(*_: object) -> None:
        connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RedisConnectionError("Connection closed by server.") from None

    monkeypatch.setattr(PubSub, "subscribe", fail_when_cancelled)
    async with build_cache(CacheSettings(url=SecretStr(redis_url))) as manager:
        await manager.cache("config", str).set("ada", "Ada")
        async with asyncio.timeout(30):
            await connecting.wait()
    assert [record.getMessage() for record in caplog.records] == []


async def test_closing_leaves_no_task_running(private_redis: ValkeyServer) -> None:
    """If the last replay before closing opens the breaker, no probe is left running."""
    settings = CacheSettings(url=SecretStr(private_redis.url()))
    before = asyncio.all_tasks()
    async with build_cache(settings) as manager:
        private_redis.kill()
        await manager.cache("config", str).delete("ada")
    assert manager.health().l2 == "up"  # the breaker is closed again, so that a later start asks Redis
    assert asyncio.all_tasks() == before


def test_a_manager_restarts_on_another_event_loop(private_redis: ValkeyServer, eventually: Any) -> None:
    """Outages, concurrent requests and sets work on a second event loop too, as under several test clients."""
    settings = CacheSettings(url=SecretStr(private_redis.url()), l2_timeout=5)
    manager, limiter = build_cache(settings), build_rate_limiter(settings)
    config, revoked = manager.cache("config", str), manager.expiring_set("revoked")

    async def live() -> None:
        async with manager, limiter:
            await eventually(lambda: revoked.live)
            private_redis.kill()
            await config.set("ada", "Ada")
            await limiter.hit(RatePolicy("p", 10, 60), "ada")
            private_redis.start()
            await eventually(lambda: revoked.live and manager.health() == CacheHealth("up", "live", 0))
            await asyncio.gather(*(config.set(number, "crowd") for number in range(200)))
            assert manager.health().recovery_queue == 0

    asyncio.run(live())
    asyncio.run(live())

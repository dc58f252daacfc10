"""A manager ends whatever it is at, and may begin again."""

import asyncio
from typing import Any

from pydantic import SecretStr

from tequipy_caching import CacheHealth, RatePolicy
from tequipy_caching.wiring import CacheSettings, build_cache, build_rate_limiter
from tequipy_devstack.servers import ValkeyServer


async def test_a_manager_can_be_left_at_any_moment(redis_url: str, redis_prefix: str) -> None:
    """Left while it connects, where redis-py swallows some cancellations, a manager still closes."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix)
    for turns in range(150):
        async with asyncio.timeout(10), build_cache(settings):
            for _ in range(turns % 30):
                await asyncio.sleep(0)


async def test_nothing_is_left_running(private_redis: ValkeyServer) -> None:
    """With Redis away the last attempt to replay what waits opens the breaker, which looks for Redis no more."""
    settings = CacheSettings(url=SecretStr(private_redis.url()))
    before = asyncio.all_tasks()
    async with build_cache(settings) as manager:
        private_redis.kill()
        await manager.cache("config", str).delete("ada")
    assert manager.health().l2 == "up"  # not known: whoever enters it again asks
    assert asyncio.all_tasks() == before


def test_a_manager_is_entered_again_on_another_loop(private_redis: ValkeyServer, eventually: Any) -> None:
    """As an app under several test clients: outages, crowds and sets are met on a second loop as on the first."""
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

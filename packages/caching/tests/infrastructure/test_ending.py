"""A manager ends whatever it is at."""

import asyncio

from pydantic import SecretStr

from tequipy_caching.wiring import CacheSettings, build_cache


async def test_a_manager_can_be_left_at_any_moment(redis_url: str, redis_prefix: str) -> None:
    """Left while it connects, where redis-py swallows some cancellations, a manager still closes."""
    settings = CacheSettings(url=SecretStr(redis_url), prefix=redis_prefix)
    for turns in range(150):
        async with asyncio.timeout(10), build_cache(settings):
            for _ in range(turns % 30):
                await asyncio.sleep(0)

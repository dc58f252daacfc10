"""What the tests of the caches share."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from tequipy_caching import CachePolicy
from tequipy_caching.infrastructure.manager import TieredCacheManager
from tequipy_caching.wiring import CacheSettings, build_cache


class Factory:
    """Gives a value and counts its calls; a held one waits for `go`."""

    def __init__(self, value: str, *, held: bool = False) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self._value = value
        if not held:
            self.go.set()

    async def __call__(self) -> str:
        self.calls += 1
        await self.go.wait()
        return self._value

    async def called(self) -> None:
        """Return when it has been called."""
        await eventually_true(lambda: self.calls > 0)


async def eventually_true(probe: Callable[[], bool | Awaitable[bool]], seconds: float = 20) -> None:
    """Return when the probe is true; fail when it is not within the time."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.002)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return eventually_true


@pytest.fixture
def factory() -> type[Factory]:
    return Factory


@pytest.fixture
def policies() -> dict[str, CachePolicy]:
    return {
        "words": CachePolicy(ttl=60),
        "others": CachePolicy(ttl=60),
        "brief": CachePolicy(ttl=0.05, jitter=0),
        "hasty": CachePolicy(ttl=60, hard_timeout=0.05),
        "small": CachePolicy(ttl=60, max_value_bytes=100),
        "local": CachePolicy(ttl=60, tiers="l1"),
        "remote": CachePolicy(ttl=60, tiers="l2"),
    }


@pytest.fixture
async def start(
    redis_prefix: str, policies: dict[str, CachePolicy]
) -> AsyncIterator[Callable[..., Awaitable[TieredCacheManager]]]:
    """Yield what starts a manager, as another process would, and waits until it hears invalidations."""
    async with AsyncExitStack() as stack:

        async def start(url: str, *, live: bool = True, registry: Any = None, **settings: Any) -> TieredCacheManager:
            settings = {"prefix": redis_prefix, "policies": policies, **settings}
            manager = build_cache(CacheSettings(url=SecretStr(url), **settings), registry=registry)
            assert isinstance(manager, TieredCacheManager)
            await stack.enter_async_context(manager)
            if live:
                await eventually_true(lambda: manager.backplane.live)
            return manager

        yield start

"""Failures of Redis under traffic: their effect on callers, and the recovery."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tequipy_caching import Cache
from tequipy_devstack.servers import ValkeyServer

CALLERS = 20
KEYS = 100
PAUSE = 0.01
"""Seconds between two calls of one caller."""
TIMEOUT = 0.25
"""The `l2_timeout`."""


@dataclass
class Traffic:
    """Callers that read and delete continuously, and their results."""

    seconds: list[float] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    over: bool = False

    async def read(self, cache: Cache[str], start: int) -> None:
        """Read one key after another. Each is loaded from time to time, because it is deleted."""
        number = start
        while not self.over:
            key = number % KEYS
            number += 1
            began = time.monotonic()
            try:
                assert await cache.get_or_set(key, lambda key=key: load(key)) == str(key)  # type: ignore[misc]  # -- bound now
                if number % 10 == 0:
                    await cache.delete(key)
            except Exception as error:  # noqa: BLE001 -- whatever a caller would see
                self.errors.append(error)
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(PAUSE)


async def load(key: int) -> str:
    await asyncio.sleep(0.001)
    return str(key)


async def kill(server: ValkeyServer, _: Any) -> None:
    await asyncio.to_thread(server.kill)


async def freeze(server: ValkeyServer, _: Any) -> None:
    await asyncio.to_thread(server.freeze)


async def slow_down(_: ValkeyServer, proxy: Any) -> None:
    proxy.delay = 2 * TIMEOUT


async def restart(server: ValkeyServer, _: Any) -> None:
    await asyncio.to_thread(server.restart)


async def restart_empty(server: ValkeyServer, _: Any) -> None:
    await asyncio.to_thread(server.restart, empty=True)


async def thaw(server: ValkeyServer, _: Any) -> None:
    await asyncio.to_thread(server.thaw)


async def speed_up(_: ValkeyServer, proxy: Any) -> None:
    proxy.delay = 0


def failed_requests(registry: CollectorRegistry) -> float:
    kinds = ("busy", "connection", "timeout", "answer")
    return sum(registry.get_sample_value("cache_l2_errors_total", {"kind": kind}) or 0 for kind in kinds)


Step = Callable[[ValkeyServer, Any], Awaitable[None]]


@pytest.mark.parametrize("lasting", [pytest.param(0.5, id="short"), pytest.param(5, id="5 s", marks=pytest.mark.prove)])
@pytest.mark.parametrize(
    ("breaks", "mends"),
    [(kill, restart), (freeze, thaw), (slow_down, speed_up), (kill, restart_empty)],
    ids=["killed", "frozen", "slowed", "restarted empty"],
)
async def test_an_outage_costs_each_caller_one_timeout(
    start: Any,
    private_redis: ValkeyServer,
    proxy: Any,
    proxy_url: str,
    eventually: Any,
    request: pytest.FixtureRequest,
    breaks: Step,
    mends: Step,
    lasting: float,
) -> None:
    """20 callers, half of them without L1, see no error, and the breaker closes again by itself."""
    registry = CollectorRegistry()
    manager = await start(proxy_url, l2_timeout=TIMEOUT, registry=registry)
    traffic = Traffic()
    callers = [
        asyncio.create_task(traffic.read(manager.cache("remote" if number % 2 else "words", str), number * 7))
        for number in range(CALLERS)
    ]
    await eventually(lambda: len(traffic.seconds) > 10 * CALLERS)
    before, slowest_before = len(traffic.seconds), max(traffic.seconds)
    await breaks(private_redis, proxy)
    await eventually(lambda: manager.link.breaker.open)
    await asyncio.sleep(lasting)
    during, failed = traffic.seconds[before:], failed_requests(registry)
    await mends(private_redis, proxy)
    mended = time.monotonic()
    await eventually(lambda: not manager.link.breaker.open, 60)
    closed = time.monotonic() - mended
    await eventually(lambda: manager.backplane.live, 60)
    live = time.monotonic() - mended
    after = len(traffic.seconds)
    await eventually(lambda: len(traffic.seconds) > after + 10 * CALLERS)
    traffic.over = True
    await asyncio.gather(*callers)
    print(
        f"\nRedis {request.node.callspec.id}: {len(traffic.seconds)} calls, {len(traffic.errors)} errors; slowest call "
        f"before {1000 * slowest_before:.0f} ms, of {len(during)} during the outage {1000 * max(during):.0f} ms, "
        f"{failed:.0f} of them asked Redis in vain; breaker closed {closed:.2f} s and memory trusted {live:.2f} s "
        "after it was mended"
    )
    assert not traffic.errors
    # Each caller waits for at most one timeout, or two on a slow machine; later calls do not wait.
    assert 0 < failed <= 2 * CALLERS

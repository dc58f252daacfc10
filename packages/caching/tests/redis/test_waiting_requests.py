"""Many concurrent requests that wait for connections are not an outage of Redis."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.servers import ValkeyServer

CROWD = 2000


async def test_waiting_for_a_connection_is_no_outage(
    start: Any, proxy: Any, proxy_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """2,000 concurrent reads of a Redis that answers in `l2_timeout` / 20 succeed, and the breaker stays closed."""
    registry = CollectorRegistry()
    manager = await start(proxy_url, l2_timeout=2, registry=registry)
    words = manager.cache("remote", str)
    for number in range(CROWD // 100):
        await asyncio.gather(*(words.set(100 * number + each, "word") for each in range(100)))
    proxy.delay = 0.1
    found = await asyncio.gather(*(words.get(number) for number in range(CROWD)))
    busy, timeouts = [
        registry.get_sample_value("cache_l2_errors_total", {"kind": kind}) or 0 for kind in ("busy", "timeout")
    ]
    outages = [each.message for each in caplog.records].count("cache_breaker_opened")
    print(f"{found.count('word')} of {CROWD} found, outages: {outages}, {busy=}, {timeouts=}")
    assert outages == 0
    assert busy == 0
    assert found.count("word") >= CROWD - timeouts


async def test_a_probe_does_not_wait_for_other_requests(start: Any, proxy: Any, proxy_url: str) -> None:
    """The readiness check gets an answer from Redis while many requests wait for connections."""
    manager = await start(proxy_url, l2_timeout=4)
    words = manager.cache("remote", str)
    proxy.delay = 4 / 16
    crowd = asyncio.gather(*(words.get(number) for number in range(CROWD // 4)))
    await asyncio.sleep(0)
    await manager.ping()
    assert not crowd.done()
    await crowd


async def test_waiting_requests_do_not_ask_a_frozen_redis(start: Any, private_redis: ValkeyServer) -> None:
    """When the first requests time out, those that wait behind them do not ask Redis any more."""
    registry = CollectorRegistry()
    manager = await start(private_redis.url(), l2_timeout=0.5, registry=registry)
    words = manager.cache("remote", str)
    await words.get("warm")
    private_redis.freeze()
    await asyncio.gather(*(words.get(number) for number in range(CROWD)))
    timeouts = registry.get_sample_value("cache_l2_errors_total", {"kind": "timeout"}) or 0
    private_redis.thaw()
    print(f"timeouts: {timeouts}")
    assert manager.link.breaker.open
    # 50 at once. A process that is starved takes the first timeouts for its own delay, and asks 50 more; meanwhile the
    # others may have waited for as long as they do for a connection.
    assert 50 <= timeouts < CROWD / 10

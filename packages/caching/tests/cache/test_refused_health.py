"""Redis answers and refuses writes: health, metrics, `ping` and the log show it, and the channel works."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.redis.backplane import ANSWER_TIMEOUT, PING_AFTER
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer

from .refusals import Refusal, url

pytestmark = pytest.mark.usefixtures("quick_probes")


async def test_health_shows_refused_writes(
    start: Any, server: ValkeyServer, refusal: Refusal, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`health()` is `refusing` with the server's error text, and one line is logged at the start and the end."""
    caplog.set_level("INFO")
    manager = await start(url(server), l2_timeout=1)
    words = manager.cache("words", str)
    await refusal.begin(server)
    for number in range(5):
        await words.set(number, "word")
    health = manager.health()
    assert (health.l2, (health.reason or "").split()[0]) == ("refusing", refusal.code)
    assert "script" not in (health.reason or "")
    assert await manager.ping() > 0
    await eventually(lambda: manager.health().backplane == "live")
    await refusal.end(server)
    await eventually(lambda: manager.health().l2 == "up" and not manager.health().recovery_queue, 5)
    assert manager.health().reason is None
    lines = [record.message for record in caplog.records if record.message.startswith("cache_writes")]
    assert lines == ["cache_writes_refused", "cache_writes_accepted"]


async def test_metrics_show_refused_writes(
    start: Any, limiters: Any, server: ValkeyServer, refusal: Refusal, eventually: Any
) -> None:
    """A metric of the caches and one of the limiter are 1 while Redis refuses writes, and 0 before and after."""
    registry = CollectorRegistry()
    manager = await start(url(server), l2_timeout=1, registry=registry)
    limiter = await limiters(url(server), l2_timeout=1, registry=registry)
    names = ("cache_writes_refused", "ratelimit_writes_refused")
    assert [registry.get_sample_value(name) for name in names] == [0, 0]
    await refusal.begin(server)
    await manager.ping()
    await limiter.link.ping()
    assert [registry.get_sample_value(name) for name in names] == [1, 1]
    assert [registry.get_sample_value(name) for name in ("cache_breaker_state", "ratelimit_breaker_state")] == [0, 0]
    await refusal.end(server)
    await eventually(lambda: [registry.get_sample_value(name) for name in names] == [0, 0])


async def test_ping_detects_refused_writes(start: Any, server: ValkeyServer, refusal: Refusal) -> None:
    """`ping` detects the refusal in a process that writes nothing."""
    manager = await start(url(server), l2_timeout=1)
    await manager.ping()
    assert manager.health().l2 == "up"
    await refusal.begin(server)
    await manager.ping()
    assert manager.health().l2 == "refusing"
    await refusal.end(server)
    await manager.ping()
    assert manager.health().l2 == "up"


async def test_the_channel_works_while_writes_are_refused(
    start: Any, server: ValkeyServer, refusal: Refusal, eventually: Any
) -> None:
    """A process that only listens stays live for longer than the detection of a cut channel takes."""
    listening = await start(url(server), l2_timeout=1)
    await refusal.begin(server)
    loop = asyncio.get_running_loop()
    ends = loop.time() + PING_AFTER + ANSWER_TIMEOUT + 0.2

    def goes_on() -> bool:
        assert listening.health().backplane == "live"
        return loop.time() > ends

    await eventually(goes_on)


async def test_health_shows_no_refusal_before_the_first_contact() -> None:
    """Before the first contact with a server, `health()` shows no refusal."""
    manager = build_cache(CacheSettings(url=SecretStr("redis://127.0.0.1:1")))
    assert isinstance(manager, TieredCacheManager)
    assert (manager.health().l2, manager.health().reason) == ("up", None)

"""The channel: L1 is not trusted whenever messages may have been missed."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tequipy_caching import MISSING
from tequipy_caching.cache.prometheus import PrometheusCacheMetrics
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink
from tequipy_caching.redis.messages import Listener
from tequipy_devstack.servers import ValkeyServer


class RecordingListener(Listener):
    """A listener that records messages and gaps."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.gaps = 0

    def on_message(self, body: Any) -> None:
        match body:
            case str():
                self.messages.append(body)
            case _:
                raise ValueError("no word")

    def on_gap(self) -> None:
        self.gaps += 1


@pytest.fixture
def kill() -> Callable[[str], Awaitable[None]]:
    """Return a function that closes every channel of a server."""

    async def kill(url: str) -> None:
        async with Redis.from_url(url) as redis:
            await redis.client_kill_filter(_type="pubsub")

    return kill


async def test_l1_is_kept_after_a_disconnection_without_messages(
    start: Any, private_redis: ValkeyServer, eventually: Any, kill: Any
) -> None:
    """If the channel is cut and returns at the same position, no message was missed, and L1 is kept."""
    manager = await start(private_redis.url())
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    await kill(private_redis.url())
    await eventually(lambda: not manager.backplane.live)
    assert words.peek("ada") is MISSING
    assert await words.get("ada") == "Ada"
    await eventually(lambda: manager.backplane.live)
    assert words.peek("ada") == "Ada"


async def test_l1_is_flushed_after_missed_messages(
    start: Any, private_redis: ValkeyServer, eventually: Any, kill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While disconnected, reads go to Redis; if the positions differ afterwards, L1 is flushed."""
    disconnected, other = await start(private_redis.url()), await start(private_redis.url())
    words = disconnected.cache("words", str)
    await words.set("ada", "old")
    await words.set("bob", "old")
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 2)
    await kill(private_redis.url())
    await eventually(lambda: not disconnected.backplane.live)
    await other.cache("words", str).set("ada", "new")
    assert await words.get("ada") == "new"
    await eventually(lambda: disconnected.backplane.live)
    assert words.peek("bob") is MISSING


async def test_a_gap_in_the_numbers_flushes_l1(start: Any, redis_url: str, eventually: Any) -> None:
    """A message whose sequence number is too high shows a gap; it is counted, and L1 is flushed."""
    registry = CollectorRegistry()
    manager = await start(redis_url, registry=registry)
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    async with Redis.from_url(redis_url) as redis:
        await redis.hincrby(manager.link.state, "sequence", 1)
        assert words.peek("ada") == "Ada"
        await (await start(redis_url)).cache("words", str).delete("nobody")
    await eventually(lambda: words.peek("ada") is MISSING)
    assert manager.backplane.live
    assert registry.get_sample_value("cache_backplane_gaps_total") == 1


@pytest.mark.parametrize("empty", [True, False])
async def test_a_restarted_redis_is_detected_by_its_epoch(
    start: Any, private_redis: ValkeyServer, eventually: Any, *, empty: bool
) -> None:
    """After a restart of Redis, with or without its data, L1 is flushed, because the last changes may be lost."""
    manager = await start(private_redis.url())
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    private_redis.kill()
    await eventually(lambda: not manager.backplane.live)
    private_redis.restart(empty=empty)
    await eventually(lambda: manager.backplane.live)
    assert words.peek("ada") is MISSING


async def test_an_emptied_redis_is_detected_at_the_next_message(start: Any, redis_url: str, eventually: Any) -> None:
    """If Redis is emptied while it runs, the next change begins a new epoch, and L1 is flushed."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(manager.link.state)
        await (await start(redis_url)).cache("words", str).delete("nobody")
    await eventually(lambda: words.peek("ada") is MISSING)


async def test_a_silently_cut_channel_is_detected(start: Any, proxy: Any, proxy_url: str, eventually: Any) -> None:
    """A half-open channel is detected, and the disconnected time is counted."""
    registry = CollectorRegistry()
    manager = await start(proxy_url, registry=registry, l2_timeout=0.25)

    def disconnected_seconds() -> float:
        return registry.get_sample_value("cache_backplane_deaf_seconds_total") or 0

    before = disconnected_seconds()
    proxy.cut(also_new=True)
    started = time.monotonic()
    await eventually(lambda: not manager.backplane.live)
    print(f"disconnected after {time.monotonic() - started:.2f} s")
    await eventually(lambda: disconnected_seconds() > before)
    proxy.reset()
    proxy.cut()
    await eventually(lambda: manager.backplane.live)


@pytest.mark.parametrize(
    "garbage", [b"no json", b"a b c", b"e 1 [1, 2]", b'e 1 ["x", "cache:words", "not a list"]', b"\xff"]
)
async def test_an_unknown_message_flushes_l1(start: Any, redis_url: str, eventually: Any, garbage: bytes) -> None:
    """A message of a later version may mean any change: L1 is flushed, and the channel goes on."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    async with Redis.from_url(redis_url) as redis:
        await redis.publish(manager.link.channel, garbage)
    await eventually(lambda: words.peek("ada") is MISSING)
    assert manager.backplane.live


async def test_topics_reach_their_listeners(redis_url: str, redis_prefix: str, eventually: Any) -> None:
    """The listener of a topic in each other process receives a message once; an invalid message counts as a gap."""
    metrics = PrometheusCacheMetrics(None)
    links = [RedisLink(redis_url, prefix=redis_prefix, timeout=5, metrics=metrics) for _ in range(2)]
    planes = [Backplane(link, metrics=metrics) for link in links]
    listeners = [RecordingListener(), RecordingListener()]
    for plane, listener in zip(planes, listeners, strict=True):
        plane.listen("set:revoked", listener)
        plane.start()
    await eventually(lambda: planes[0].live and planes[1].live)
    gaps = listeners[1].gaps
    for topic, body in [("set:revoked", "ada"), ("set:others", "bob"), ("set:revoked", 42), ("set:revoked", "cy")]:
        await links[0].run_and_publish("remove", [], [b"", 1], message=planes[0].message(topic, body))
    await eventually(lambda: listeners[1].messages == ["ada", "cy"])
    assert listeners[1].gaps == gaps + 1
    assert listeners[0].messages == []
    for plane, link in zip(planes, links, strict=True):
        await plane.stop()
        await link.close()

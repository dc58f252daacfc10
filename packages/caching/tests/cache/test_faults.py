"""Caches while Redis is unavailable: no caller sees an error or waits long."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import hiredis
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tequipy_caching import CacheHealth, CacheUnavailable
from tequipy_devstack.servers import ValkeyServer


async def test_without_redis_callers_are_served(start: Any, free_port: Callable[[], int], factory: Any) -> None:
    """Without a server from the start, L1 and loads work, and only `ping` raises `CacheUnavailable`."""
    manager = await start(f"redis://127.0.0.1:{free_port()}", live=False)
    words, load = manager.cache("words", str), factory("Ada")
    assert await words.get_or_set("ada", load) == "Ada"
    assert await words.get_or_set("ada", load) == "Ada"
    assert load.calls == 1
    await words.set("bob", "Bob")
    assert (await words.get("bob"), words.peek("bob")) == ("Bob", "Bob")
    await words.delete("bob")
    assert await words.get("bob") is None
    with pytest.raises(CacheUnavailable, match="Redis does not answer"):
        await manager.ping()


async def test_on_error_raise_raises(start: Any, free_port: Callable[[], int], factory: Any) -> None:
    """With `on_error="raise"`, callers get `CacheUnavailable`."""
    manager = await start(f"redis://127.0.0.1:{free_port()}", live=False, on_error="raise")
    words = manager.cache("words", str)
    for call in (
        words.get("ada"),
        words.get_or_set("ada", factory("Ada")),
        words.set("ada", "Ada"),
        words.delete("ada"),
    ):
        with pytest.raises(CacheUnavailable):
            await call


async def test_a_frozen_redis_costs_one_timeout(
    start: Any, private_redis: ValkeyServer, factory: Any, eventually: Any
) -> None:
    """With Redis frozen, only the first call waits `l2_timeout`; afterwards values are shared again."""
    manager = await start(private_redis.url(), l2_timeout=0.5)
    other = await start(private_redis.url())
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    private_redis.freeze()
    started = time.monotonic()
    assert await words.get_or_set("bob", factory("Bob")) == "Bob"
    first = time.monotonic() - started
    started = time.monotonic()
    for number in range(100):
        assert await words.get_or_set(number, factory("word")) == "word"
    hundred = time.monotonic() - started
    print(f"first call {first:.3f} s, the next hundred {hundred:.3f} s")
    assert hundred < first
    private_redis.thaw()
    await eventually(lambda: not manager.link.breaker.open and manager.backplane.live and other.backplane.live)
    await words.set("ada", "again")
    assert await other.cache("words", str).get("ada") == "again"


class World(NamedTuple):
    """A server and a proxy with the ways in which they can fail."""

    server: ValkeyServer
    proxy: Any

    async def command(self, command: str) -> None:
        """Execute a command on the server, without the proxy."""
        async with Redis.from_url(self.server.url()) as redis:
            await cast("Any", redis).execute_command(*command.split())

    async def delay(self, seconds: float) -> None:
        """Delay the server's responses."""
        self.proxy.delay = seconds

    async def restart(self, *, empty: bool = False) -> None:
        """Start the killed server again."""
        await asyncio.to_thread(self.server.restart, empty=empty)

    async def reopen(self) -> None:
        """Accept new connections again."""
        await self.proxy.refuse()
        await self.proxy.open()


Step = Callable[[World], Awaitable[None]]

OUTAGES: dict[str, tuple[Step, Step]] = {
    "killed": (lambda world: asyncio.to_thread(world.server.kill), World.restart),
    "restarted empty": (lambda world: asyncio.to_thread(world.server.kill), lambda world: world.restart(empty=True)),
    "mute": (lambda world: asyncio.to_thread(world.server.freeze), lambda world: asyncio.to_thread(world.server.thaw)),
    "slow": (lambda world: world.delay(0.4), lambda world: world.delay(0)),
    "half open": (lambda world: asyncio.to_thread(world.proxy.cut, also_new=True), World.reopen),
    "refused": (lambda world: world.proxy.refuse(), World.reopen),
    "reset": (lambda world: asyncio.sleep(0, world.proxy.reset()), lambda _: asyncio.sleep(0)),
    "read-only": (
        lambda world: world.command("REPLICAOF 127.0.0.1 1"),
        lambda world: world.command("REPLICAOF NO ONE"),
    ),
    "out of memory": (
        lambda world: world.command("CONFIG SET maxmemory 1"),
        lambda world: world.command("CONFIG SET maxmemory 0"),
    ),
    "scripts flushed": (lambda world: world.command("SCRIPT FLUSH"), lambda _: asyncio.sleep(0)),
}
"""Every way in which Redis breaks, and what mends it."""


@pytest.mark.parametrize("kind", OUTAGES)
async def test_no_caller_sees_an_outage(
    start: Any, private_redis: ValkeyServer, proxy: Any, proxy_url: str, factory: Any, eventually: Any, kind: str
) -> None:
    """Whatever happens to Redis, calls return correct values, no delete is lost, and values are shared afterwards."""
    world, (break_it, mend_it) = World(private_redis, proxy), OUTAGES[kind]
    manager = await start(proxy_url, l2_timeout=0.25)
    other = await start(private_redis.url())
    words, others = manager.cache("words", str), other.cache("words", str)
    for key in ("deleted", "set", "expired", "tagged"):
        await words.set(key, "old", tags=["team"] if key == "tagged" else [])
    await break_it(world)
    slowest = 0.0
    for number in range(50):
        started = time.monotonic()
        assert await words.get_or_set(f"{kind}{number}", factory("loaded")) == "loaded"
        if number == 0:
            await words.delete("deleted")
            await words.set("set", "new")
            await words.expire("expired")
            await words.delete_by_tag("team")
        slowest = max(slowest, time.monotonic() - started)
    assert await words.get_many(["deleted", "set", "expired", "tagged"]) == {"set": "new"}
    away = time.monotonic()
    await mend_it(world)
    await eventually(lambda: manager.health() == other.health() == CacheHealth("up", "live", 0), 60)
    print(f"{kind}: slowest call {slowest:.3f} s, all well {time.monotonic() - away:.2f} s after it was mended")
    assert await others.get_many(["deleted", "expired", "tagged"]) == {}
    assert await others.get("set") != "old"
    await words.set("shared", kind)
    assert await others.get("shared") == kind


async def test_a_loading_redis_opens_the_breaker(start: Any, factory: Any, eventually: Any) -> None:
    """While Redis answers LOADING to everything, no caller sees an error, and Redis is not asked again."""
    commands = 0

    async def load(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal commands
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                parser.feed(data)
                while parser.gets() is not False:
                    commands += 1
                    writer.write(b"-LOADING Valkey is loading the dataset in memory\r\n")
        writer.close()

    server = await asyncio.start_server(load, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        manager = await start(f"redis://127.0.0.1:{port}", live=False)
        words = manager.cache("words", str)
        assert await words.get_or_set("ada", factory("Ada")) == "Ada"
        await eventually(lambda: manager.health().l2 != "up")
        await words.delete("ada")
        assert manager.health().recovery_queue == 1
        asked = commands
        assert [await words.get_or_set(number, factory("word")) for number in range(100)] == ["word"] * 100
        assert commands - asked < 10  # requests of the channel that tries to join


async def test_a_blocked_event_loop_is_no_outage(start: Any, redis_url: str, factory: Any) -> None:
    """A block of the event loop longer than `l2_timeout` is not treated as an outage of Redis."""
    manager = await start(redis_url, l2_timeout=0.05)
    words = manager.cache("remote", str)
    for number in range(10):
        asking = asyncio.create_task(words.get_or_set(number, factory("word")))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 -- the fault
        assert await asking == "word"
    assert manager.health().l2 == "up"


async def test_metrics_show_the_breaker(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """Metrics show the open breaker, pending changes and kinds of failures; `health()` distinguishes open from down."""
    registry = CollectorRegistry()
    manager = await start(private_redis.url(), registry=registry, l2_timeout=0.25)
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    private_redis.freeze()
    await words.delete("ada")
    assert manager.health().l2 == "open"
    await eventually(lambda: manager.health() == CacheHealth("down", "deaf", 1))
    assert registry.get_sample_value("cache_breaker_state") == 1
    assert registry.get_sample_value("cache_recovery_queue") == 1
    assert registry.get_sample_value("cache_l2_errors_total", {"kind": "timeout"}) == 1
    assert registry.get_sample_value("cache_l1_size", {"cache": "words"}) == 0
    private_redis.thaw()
    await eventually(lambda: registry.get_sample_value("cache_breaker_state") == 0)
    assert registry.get_sample_value("cache_recovery_queue") == 0


async def test_l1_serves_fresh_values_without_redis(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """Without Redis and channel, L1 serves fresh values and counts them as stale."""
    registry = CollectorRegistry()
    manager = await start(private_redis.url(), registry=registry, l2_timeout=0.25)
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    private_redis.kill()
    await eventually(lambda: manager.health().backplane == "deaf")
    assert await words.get("ada") == "Ada"
    assert registry.get_sample_value("cache_requests_total", {"cache": "words", "tier": "l1", "result": "stale"}) == 1


async def test_a_busy_pool_is_no_outage(start: Any, redis_url: str) -> None:
    """More callers than connections wait for a connection, and the breaker stays closed."""
    manager = await start(redis_url, l2_timeout=5)
    words = manager.cache("remote", str)
    await asyncio.gather(*(words.set(number, "word") for number in range(300)))
    assert await asyncio.gather(*(words.get(number) for number in range(300))) == ["word"] * 300
    assert not manager.link.breaker.open


async def test_a_cancelled_caller_leaves_no_response(start: Any, redis_url: str) -> None:
    """Callers that are cancelled during a request leave no response for later callers."""
    words = (await start(redis_url)).cache("remote", str)
    for number in range(20):
        await words.set(number, str(number))
    for round_ in range(50):
        tasks = [asyncio.create_task(words.get(number)) for number in range(20)]
        for _ in range(round_ % 7):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(answer, asyncio.CancelledError) or answer == str(number) for number, answer in enumerate(answers)
        )

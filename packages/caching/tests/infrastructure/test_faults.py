"""What happens when Redis is away: no caller sees an error, and nobody waits for long."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import CacheUnavailable
from tequipy_devstack.servers import ValkeyServer


async def test_without_redis_callers_are_served(start: Any, free_port: Callable[[], int], factory: Any) -> None:
    """With nothing listening, from the start, memory and loads go on; only ping says that Redis is away."""
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


async def test_told_to_raise_it_raises(start: Any, free_port: Callable[[], int], factory: Any) -> None:
    """With on_error="raise" a caller learns that Redis is away."""
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


async def test_a_mute_redis_costs_one_timeout(
    start: Any, private_redis: ValkeyServer, factory: Any, eventually: Any
) -> None:
    """Frozen, the first call pays l2_timeout and the next ones nothing; thawed, values are shared again."""
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


async def test_a_killed_redis_that_comes_back_is_used_again(
    start: Any, private_redis: ValkeyServer, eventually: Any
) -> None:
    """Killed, fresh values are served from memory; started again, the probe finds it and scripts are loaded anew."""
    manager = await start(private_redis.url())
    words = manager.cache("words", str)
    await words.set("ada", "Ada")
    private_redis.kill()
    await eventually(lambda: manager.link.breaker.open)
    assert await words.get("ada") == "Ada"
    private_redis.restart()
    await eventually(lambda: not manager.link.breaker.open and manager.backplane.live)
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.script_flush()
    await words.set("bob", "Bob")
    assert await (await start(private_redis.url())).cache("words", str).get("bob") == "Bob"


async def test_a_busy_pool_is_no_outage(start: Any, redis_url: str) -> None:
    """More callers than connections wait for their turn, and the breaker stays closed."""
    manager = await start(redis_url, l2_timeout=5)
    words = manager.cache("remote", str)
    await asyncio.gather(*(words.set(number, "word") for number in range(300)))
    assert await asyncio.gather(*(words.get(number) for number in range(300))) == ["word"] * 300
    assert not manager.link.breaker.open


async def test_a_cancelled_caller_harms_no_other(start: Any, redis_url: str) -> None:
    """Callers that are cancelled while Redis answers leave no answer behind for the next ones."""
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

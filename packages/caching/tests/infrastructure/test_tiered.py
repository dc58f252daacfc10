"""Processes that share a Redis: simulated by two managers, each with memory and a channel of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tequipy_caching import MISSING, Cache, CachePolicy
from tequipy_caching.domain.tiered import TieredCache

Pair = tuple[Cache[str], Cache[str]]


@pytest.fixture
async def pair(start: Any, redis_url: str) -> Pair:
    one, two = await start(redis_url), await start(redis_url)
    return one.cache("words", str), two.cache("words", str)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """Yield a plain client, to look behind the caches."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_a_value_is_shared(pair: Pair, eventually: Any) -> None:
    """What one process sets, another finds in Redis and, once it has heard of the set, holds itself."""
    one, two = pair
    await one.set("ada", "Ada")
    assert two.peek("ada") is MISSING

    async def held() -> bool:
        assert await two.get("ada") == "Ada"
        await asyncio.sleep(0.01)
        return two.peek("ada") == "Ada"

    await eventually(held)


async def test_ten_thousand_misses_are_one_load(start: Any, redis_url: str, factory: Any) -> None:
    """10,000 callers that miss the same key at once, a tenth of whom leave: one load, one look into Redis."""
    registry = CollectorRegistry()
    words, load = (await start(redis_url, registry=registry)).cache("words", str), factory("Ada", held=True)
    callers = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(10_000)]
    await load.called()
    for caller in callers[::10]:  # the first among them
        caller.cancel()
    load.go.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    lookups = registry.get_sample_value("cache_l2_seconds_count", {"op": "read"})
    print(f"\n10,000 concurrent misses, 1,000 of them cancelled: {load.calls} load, {lookups:.0f} look into Redis")
    assert answers.count("Ada") == 9_000
    assert (load.calls, lookups) == (1, 1)


@pytest.mark.parametrize("change", ["set", "delete"])
@pytest.mark.parametrize("name", ["words", "local"])
async def test_a_change_drops_the_copies_of_others(
    start: Any, redis_url: str, eventually: Any, name: str, change: str
) -> None:
    """After a set or delete in one process the other no longer holds the old value, without Redis as a tier too."""
    one, two = [(await start(redis_url)).cache(name, str) for _ in range(2)]
    await two.get_or_set("ada", lambda: asyncio.sleep(0, "old"))
    assert two.peek("ada") == "old"
    await (one.set("ada", "new") if change == "set" else one.delete("ada"))
    await eventually(lambda: two.peek("ada") is MISSING)
    assert one.peek("ada") == ("new" if change == "set" else MISSING)


@pytest.mark.parametrize("change", ["set", "delete"])
async def test_a_load_never_brings_back_what_another_process_changed(pair: Pair, factory: Any, change: str) -> None:
    """A load that raced another process's change is returned, and cached neither in Redis nor in any memory."""
    one, two = pair
    load = factory("old", held=True)
    racing = asyncio.create_task(two.get_or_set("ada", load))
    await load.called()
    await (one.set("ada", "new") if change == "set" else one.delete("ada"))
    load.go.set()
    assert await racing == "old"
    assert two.peek("ada") is MISSING
    for words in pair:
        assert await words.get("ada") == ("new" if change == "set" else None)


async def test_a_value_of_a_short_life_fences_as_long_as_a_tombstone(pair: Pair, factory: Any, redis: Any) -> None:
    """A set whose value expires while a load is under way still keeps that load's older value out."""
    one, two = pair
    load = factory("old", held=True)
    racing = asyncio.create_task(two.get_or_set("ada", load))
    await load.called()
    await one.set("ada", "new", ttl=0.01)
    await asyncio.sleep(0.05)
    assert await one.get("ada") is None
    load.go.set()
    assert await racing == "old"
    assert await one.get("ada") is None
    (key,) = await redis.keys("*:cache:words:*")
    assert await redis.pttl(key) > 5_000


async def test_what_is_in_the_way_is_replaced(pair: Pair, redis: Any, factory: Any) -> None:
    """Foreign bytes, a damaged payload and a key of another type are misses, and the next load replaces them."""
    one, two = pair
    await one.set("ada", "Ada")
    (key,) = await redis.keys("*:cache:words:*")
    damaged = (await redis.get(key))[:-1] + b"!"
    disturbances: list[Callable[[], Awaitable[Any]]] = [
        lambda: redis.set(key, b"foreign"),
        lambda: redis.set(key, b"", px=60_000),
        lambda: redis.set(key, damaged, px=60_000),
        lambda: redis.lpush(key, b"a list"),
    ]
    for number, disturb in enumerate(disturbances):
        await redis.delete(key)
        await disturb()
        assert await two.get("ada") is None
        assert await two.get_or_set("ada", factory(f"loaded {number}")) == f"loaded {number}"
        assert (await redis.get(key)).endswith(f'"loaded {number}"'.encode())
        assert isinstance(two, TieredCache)
        two.on_message(["delete", ["ada"]])  # as a message from another process would


async def test_a_payload_of_an_older_shape_is_a_miss(start: Any, redis_url: str) -> None:
    """After a deployment that changes the type, what was stored before is loaded anew."""
    before, after = await start(redis_url), await start(redis_url)
    await before.cache("words", str).set("ada", "42")
    assert await after.cache("words", int).get("ada") is None


async def test_a_value_beyond_the_limit_is_kept_nowhere(start: Any, redis_url: str, factory: Any) -> None:
    """A value over max_value_bytes is returned, not kept, and removes the smaller one that it replaces."""
    one, two = [(await start(redis_url)).cache("small", str) for _ in range(2)]
    load = factory("x" * 200)
    assert await one.get_or_set("ada", load) == await one.get_or_set("ada", load) == "x" * 200
    assert load.calls == 2
    await one.set("ada", "small")
    await one.set("ada", "x" * 200)
    assert [await one.get("ada"), await two.get("ada")] == [None, None]


async def test_a_value_that_cannot_be_encoded_is_refused(pair: Pair, factory: Any) -> None:
    """A value that is not of the cache's type raises TypeError, set or loaded, and is not kept."""
    one, _ = pair
    with pytest.raises(TypeError, match="int"):
        await one.set("ada", 42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        await one.get_or_set("ada", factory(42))
    assert await one.get("ada") is None


async def test_two_writers_at_once_agree_in_the_end(pair: Pair) -> None:
    """However two sets of one process overlap, memory never holds another value than Redis."""
    one, two = pair
    for round_ in range(50):
        await asyncio.gather(*(one.set("ada", f"{round_}.{writer}") for writer in range(4)))
        assert await one.get("ada") == await two.get("ada")
        await two.delete("ada")


async def test_jitter_shortens_lives(start: Any, redis_url: str, redis: Any) -> None:
    """Values stored together expire apart, none later than its policy says."""
    manager = await start(redis_url, policies={"words": CachePolicy(ttl=100, jitter=0.5)})
    words = manager.cache("words", str)
    for number in range(20):
        await words.set(number, "word")
    ttls = {await redis.pttl(key) for key in await redis.keys("*:cache:words:*")}
    assert 45_000 < min(ttls) < max(ttls) - 5_000
    assert max(ttls) <= 100_000


async def test_what_happens_is_counted(start: Any, redis_url: str, factory: Any) -> None:
    """Lookups, loads, fenced fills and messages are counted by cache, tier and outcome; never by key."""
    registry = CollectorRegistry()
    words = (await start(redis_url, registry=registry)).cache("words", str)
    await words.get_or_set("secret-key", factory("Ada"))
    await words.get("secret-key")
    await words.get("secret-key")
    await words.delete("secret-key")

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert sample("cache_requests_total", cache="words", tier="l1", result="hit") == 2
    assert sample("cache_requests_total", cache="words", tier="l2", result="miss") == 1
    assert sample("cache_loads_total", cache="words", outcome="ok") == 1
    assert sample("cache_load_seconds_count", cache="words") == 1
    assert sample("cache_l2_seconds_count", op="store") == 1
    assert sample("cache_backplane_messages_total", direction="out") == 1
    labels = {value for family in registry.collect() for each in family.samples for value in each.labels.values()}
    assert "secret-key" not in str(labels)

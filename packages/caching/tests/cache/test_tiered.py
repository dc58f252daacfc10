"""Processes that share a Redis, simulated by two managers with their own L1 and channel."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tequipy_caching import MISSING, Cache, CachePolicy
from tequipy_caching.cache.tiered import TieredCache
from tequipy_caching.cache.tiers import Change

Pair = tuple[Cache[str], Cache[str]]


@pytest.fixture
async def pair(start: Any, redis_url: str) -> Pair:
    one, two = await start(redis_url), await start(redis_url)
    return one.cache("words", str), two.cache("words", str)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """Yield a plain client, to inspect Redis."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_a_value_is_shared(pair: Pair, eventually: Any) -> None:
    """A value that one process sets is found by another one in Redis, and then in its own L1."""
    one, two = pair
    await one.set("ada", "Ada")
    assert two.peek("ada") is MISSING

    async def held() -> bool:
        assert await two.get("ada") == "Ada"
        await asyncio.sleep(0.01)
        return two.peek("ada") == "Ada"

    await eventually(held)


async def test_ten_thousand_misses_are_one_load(start: Any, redis_url: str, factory: Any) -> None:
    """10,000 concurrent misses of a key, of which a tenth are cancelled, cause one load and one lookup in Redis."""
    registry = CollectorRegistry()
    words, load = (await start(redis_url, registry=registry)).cache("words", str), factory("Ada", held=True)
    callers = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(10_000)]
    await load.called()
    for caller in callers[::10]:  # including the first one
        caller.cancel()
    load.go.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    lookups = registry.get_sample_value("cache_l2_seconds_count", {"op": "read"})
    print(f"\n10,000 concurrent misses, 1,000 of them cancelled: {load.calls} load, {lookups:.0f} look into Redis")
    assert answers.count("Ada") == 9_000
    assert (load.calls, lookups) == (1, 1)


@pytest.mark.parametrize("change", ["set", "delete"])
@pytest.mark.parametrize("name", ["words", "local"])
async def test_a_change_removes_copies_in_other_processes(
    start: Any, redis_url: str, eventually: Any, name: str, change: str
) -> None:
    """After a set or delete in one process, another one does not hold the old value, also without L2."""
    one, two = [(await start(redis_url)).cache(name, str) for _ in range(2)]
    await two.get_or_set("ada", lambda: asyncio.sleep(0, "old"))
    assert two.peek("ada") == "old"
    await (one.set("ada", "new") if change == "set" else one.delete("ada"))
    await eventually(lambda: two.peek("ada") is MISSING)
    assert one.peek("ada") == ("new" if change == "set" else MISSING)


@pytest.mark.parametrize("change", ["set", "delete"])
async def test_a_load_that_raced_a_change_is_not_stored(pair: Pair, factory: Any, change: str) -> None:
    """A load that raced a change of another process is returned, but stored neither in Redis nor in L1."""
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


async def test_an_expired_value_guards_as_long_as_a_tombstone(pair: Pair, factory: Any, redis: Any) -> None:
    """A set value that expires during a load still keeps the load's older value from being stored."""
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


async def test_unreadable_entries_are_replaced(pair: Pair, redis: Any, factory: Any) -> None:
    """Foreign bytes, a damaged value and a key of another Redis type are misses, and the next load replaces them."""
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
        two.on_change(Change("delete", ["ada"]))  # as a message of another process does


async def test_a_value_of_an_older_schema_is_a_miss(start: Any, redis_url: str) -> None:
    """After a deployment that changes the type, values of the old schema are loaded again."""
    before, after = await start(redis_url), await start(redis_url)
    await before.cache("words", str).set("ada", "42")
    assert await after.cache("words", int).get("ada") is None


async def test_a_value_over_the_limit_is_not_stored(start: Any, redis_url: str, factory: Any) -> None:
    """A value over `max_value_bytes` is returned, not stored, and removes the smaller value before it."""
    one, two = [(await start(redis_url)).cache("small", str) for _ in range(2)]
    load = factory("x" * 200)
    assert await one.get_or_set("ada", load) == await one.get_or_set("ada", load) == "x" * 200
    assert load.calls == 2
    await one.set("ada", "small")
    await one.set("ada", "x" * 200)
    assert [await one.get("ada"), await two.get("ada")] == [None, None]


async def test_a_value_that_cannot_be_encoded_is_refused(pair: Pair, factory: Any) -> None:
    """A value that is not of the cache's type raises `TypeError`, whether set or loaded, and is not stored."""
    one, _ = pair
    with pytest.raises(TypeError, match="int"):
        await one.set("ada", 42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        await one.get_or_set("ada", factory(42))
    assert await one.get("ada") is None


async def test_concurrent_writers_agree_in_the_end(pair: Pair) -> None:
    """However two sets of one process overlap, L1 and Redis have the same value at the end."""
    one, two = pair
    for round_ in range(50):
        await asyncio.gather(*(one.set("ada", f"{round_}.{writer}") for writer in range(4)))
        assert await one.get("ada") == await two.get("ada")
        await two.delete("ada")


async def test_jitter_shortens_ttls(start: Any, redis_url: str, redis: Any) -> None:
    """Values stored together expire at different times, none later than the policy allows."""
    manager = await start(redis_url, policies={"words": CachePolicy(ttl=100, jitter=0.5)})
    words = manager.cache("words", str)
    for number in range(20):
        await words.set(number, "word")
    ttls = {await redis.pttl(key) for key in await redis.keys("*:cache:words:*")}
    assert 45_000 < min(ttls) < max(ttls) - 5_000
    assert max(ttls) <= 100_000


async def test_operations_are_counted(start: Any, redis_url: str, factory: Any) -> None:
    """Lookups, loads, discarded values and messages are counted by cache, tier and outcome, never by key."""
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

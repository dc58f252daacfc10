"""What every cache promises, on the fake and on the real tiers alike."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tequipy_caching import MISSING, Cache, CacheManager, LoadTimeout, RecursiveLoad, UnknownCache
from tequipy_caching.testing import MemoryCacheManager


@pytest.fixture(params=["memory", "redis"])
async def manager(request: pytest.FixtureRequest, start: Any, policies: Any) -> AsyncIterator[CacheManager]:
    if request.param == "redis":
        yield await start(request.getfixturevalue("redis_url"))
    else:
        async with MemoryCacheManager(policies) as made:
            yield made


@pytest.fixture(params=["words", "local", "remote"])
def words(request: pytest.FixtureRequest, manager: CacheManager) -> Cache[str | None]:
    return manager.cache(request.param, str | None)  # type: ignore[arg-type]


async def test_what_is_set_is_found(words: Cache[str | None]) -> None:
    """A value that was set is got, None and the empty one too; a key that nobody set gives the default."""
    for value in ("Ada", "", None):
        await words.set("key", value)
        assert await words.get("key", "default") == value
    assert await words.get("nobody") is None
    assert await words.get("nobody", 42) == 42
    assert words.peek("nobody") is MISSING


async def test_peek_shows_what_this_process_holds(manager: CacheManager) -> None:
    """What was set here is held here; a cache without memory holds nothing in the real tiers."""
    for name in ("words", "local"):
        words = manager.cache(name, str)
        await words.set("ada", "Ada")
        assert words.peek("ada") == "Ada"


async def test_a_deleted_value_is_gone(words: Cache[str | None], factory: Any) -> None:
    """After a delete of some keys they are loaded anew, and the others are still there."""
    for key in ("a", "b", "c"):
        await words.set(key, "old")
    await words.delete("a", "b")
    await words.delete()
    load = factory("new")
    assert [await words.get_or_set(key, load) for key in ("a", "b", "c")] == ["new", "new", "old"]
    assert load.calls == 2


async def test_what_was_loaded_is_kept(words: Cache[str | None], factory: Any) -> None:
    """The second caller does not load."""
    load = factory("Ada")
    assert [await words.get_or_set("ada", load) for _ in range(3)] == ["Ada"] * 3
    assert load.calls == 1


async def test_a_thousand_misses_are_one_load(words: Cache[str | None], factory: Any) -> None:
    """All who ask for one key while it is loaded get what one load gives."""
    load = factory("Ada", held=True)
    waiting = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(1000)]
    await load.called()
    load.go.set()
    assert await asyncio.gather(*waiting) == ["Ada"] * 1000
    assert load.calls == 1


async def test_a_failed_load_is_not_kept(words: Cache[str | None], factory: Any) -> None:
    """The exception reaches the caller, and the next one loads anew."""

    async def fail() -> str:
        raise LookupError("no such word")

    with pytest.raises(LookupError):
        await words.get_or_set("ada", fail)
    assert await words.get_or_set("ada", factory("Ada")) == "Ada"


@pytest.mark.parametrize("change", ["set", "delete"])
async def test_a_load_that_raced_a_change_is_not_kept(words: Cache[str | None], factory: Any, change: str) -> None:
    """A load that began before a set or delete returns to its callers, and its value is kept nowhere."""
    load = factory("old", held=True)
    racing = asyncio.create_task(words.get_or_set("ada", load))
    await load.called()
    await (words.set("ada", "new") if change == "set" else words.delete("ada"))
    assert await words.get_or_set("ada", factory("new")) == "new"
    load.go.set()
    assert await racing == "old"
    assert await words.get("ada") == "new"


async def test_a_life_ends(manager: CacheManager, eventually: Any) -> None:
    """A value is gone after its life, and a life may be given with it."""
    brief, words = manager.cache("brief", str), manager.cache("words", str)
    await brief.set("ada", "Ada")
    await words.set("ada", "Ada", ttl=0.05)
    await words.set("bob", "Bob")
    if isinstance(manager, MemoryCacheManager):
        manager.clock.advance(1)
    await eventually(lambda: (brief.peek("ada"), words.peek("ada")) == (MISSING, MISSING))
    assert [await brief.get("ada"), await words.get("ada"), await words.get("bob")] == [None, None, "Bob"]


async def test_recursion_and_slowness_are_named(manager: CacheManager, factory: Any) -> None:
    """A load that asks for its own key, and one beyond the hard timeout, raise their own exceptions."""
    words = manager.cache("words", str)

    async def load() -> str:
        return await words.get_or_set("ada", load)

    with pytest.raises(RecursiveLoad):
        await words.get_or_set("ada", load)
    with pytest.raises(LoadTimeout):
        await manager.cache("hasty", str).get_or_set("ada", factory("Ada", held=True))


async def test_wrong_use_is_named(manager: CacheManager) -> None:
    """An unknown name, a second type, a senseless ttl and a key of another type are refused."""
    words = manager.cache("words", str)
    assert manager.cache("words", str) is words
    with pytest.raises(UnknownCache, match=r"'wrods': there are .*words"):
        manager.cache("wrods", str)
    with pytest.raises(ValueError, match="holds"):
        manager.cache("words", int)
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl"):
            await words.set("ada", "Ada", ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            await words.get_or_set("ada", lambda: asyncio.sleep(0, "Ada"), ttl=ttl)
    with pytest.raises(TypeError, match="float"):
        await words.get(1.5)  # type: ignore[call-overload]


async def test_caches_do_not_meet(manager: CacheManager) -> None:
    """One key in two caches is two values."""
    await manager.cache("words", str).set("ada", "Ada")
    assert await manager.cache("others", str).get("ada") is None


async def test_a_ping_tells_seconds(manager: CacheManager) -> None:
    """With the store there, ping gives the time that it took."""
    assert 0 <= await manager.ping() < 10

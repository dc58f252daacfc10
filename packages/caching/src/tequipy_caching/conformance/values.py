"""Conformance cases about storing and finding values."""

from typing import Any
from uuid import UUID

import pytest

from tequipy_caching._exceptions import UnknownCache
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.ports import MISSING
from tequipy_caching.conformance.target import CacheTarget, Factory, eventually


@pytest.mark.asyncio
class TestValues:
    """A cache returns the values that were stored, and no others."""

    @pytest.mark.parametrize("name", ["words", "local", "remote"])
    async def test_a_set_value_is_found(self, cache_target: CacheTarget, name: str) -> None:
        """A value that was set is returned, None and the empty string included; a missing key returns the default."""
        words = await cache_target.cache(name)
        for value in ("Ada", "", None):
            await words.set("key", value)
            assert await words.get("key", "default") == value
        assert await words.get("nobody") is None
        assert await words.get("nobody", 42) == 42
        assert words.peek("nobody") is MISSING

    async def test_peek_returns_the_value_in_memory(self, cache_target: CacheTarget) -> None:
        """A value that this process has set is in its memory."""
        for name in ("words", "local"):
            words = await cache_target.cache(name)
            await words.set("ada", "Ada")
            assert words.peek("ada") == "Ada"

    @pytest.mark.parametrize("name", ["words", "local", "remote"])
    async def test_a_deleted_value_is_gone(self, cache_target: CacheTarget, name: str) -> None:
        """Deleted keys are loaded again, and the others are still stored."""
        words = await cache_target.cache(name)
        for key in ("a", "b", "c"):
            await words.set(key, "old")
        await words.delete("a", "b")
        await words.delete()
        load = Factory("new")
        assert [await words.get_or_set(key, load) for key in ("a", "b", "c")] == ["new", "new", "old"]
        assert load.calls == 2

    async def test_a_ttl_ends(self, cache_target: CacheTarget) -> None:
        """A value is gone after the ttl of its policy, or after the ttl that it was stored with."""
        manager = await cache_target.start()
        brief, words = manager.cache("brief", str), manager.cache("words", str)
        await brief.set("ada", "Ada")
        await words.set("ada", "Ada", ttl=0.05)
        await words.get_or_set("cy", Factory("Cy"), ttl=0.05)
        await words.set("bob", "Bob")
        await cache_target.advance(0.06)
        await eventually(lambda: words.peek("ada") is words.peek("cy") is brief.peek("ada") is MISSING)
        assert await words.get_many(["ada", "bob", "cy"]) == {"bob": "Bob"}
        assert await brief.get("ada") is None

    async def test_no_two_keys_collide(self, cache_target: CacheTarget) -> None:
        """Similar keys have separate values, and so do equal keys of different caches."""
        manager = await cache_target.start()
        words, others = manager.cache("words", str), manager.cache("others", str)
        keys: list[Key] = [
            "1",
            1,
            UUID(int=1),
            str(UUID(int=1)),
            ("1",),
            (1,),
            ("1", 1),
            ("1:1",),
            "x" * 600,
            "x" * 601,
            ("", ""),
        ]
        for number, key in enumerate(keys):
            await words.set(key, str(number))
        assert [await words.get(key) for key in keys] == [str(number) for number in range(len(keys))]
        assert await words.get_many(keys) == {key: str(number) for number, key in enumerate(keys)}
        assert await others.get_many(keys) == {}

    async def test_wrong_use_is_refused(self, cache_target: CacheTarget) -> None:
        """Unknown names, a second type for a cache, and invalid ttls, keys and tags are refused."""
        manager = await cache_target.start()
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
                await words.get_or_set("ada", Factory("Ada"), ttl=ttl)
            with pytest.raises(ValueError, match="ttl"):
                await words.get_or_set_many(["ada"], Factory("Ada").many, ttl=ttl)
        await words.set(1, "one")
        strange: list[Any] = [1.0, True, None, ("a", 1.0)]
        for key in strange:
            with pytest.raises(TypeError, match="a key is"):
                await words.get(key)
        with pytest.raises(TypeError, match="tags"):
            await words.set("ada", "Ada", tags="team")
        many = [str(number) for number in range(256)]
        with pytest.raises(ValueError, match="at most 255 tags, not 256"):
            await words.set("ada", "Ada", tags=many)
        with pytest.raises(ValueError, match="at most 255 tags, not 256"):
            await words.get_or_set("ada", Factory("Ada"), tags=many)
        await words.set("ada", "Ada", tags=many[1:])
        await words.delete_by_tag(*many)
        assert await words.get("ada") is None
        number: Any = 1
        with pytest.raises(TypeError, match="a tag is a str, not int"):
            await words.set("ada", "Ada", tags=[number])

    async def test_many_keys_are_looked_up_at_once(self, cache_target: CacheTarget) -> None:
        """The result has the keys with a value, None included, and no others."""
        words = await cache_target.cache("words")
        for number in range(50):
            await words.set(number, str(number) if number else None)
        found = await words.get_many([*range(100), 1])
        assert found == {number: str(number) if number else None for number in range(50)}
        assert await words.get_many([]) == {}

    async def test_a_decorated_function_runs_once(self, cache_target: CacheTarget) -> None:
        """Its result is cached by its arguments, by which it can be removed or refreshed."""
        words = await cache_target.cache("words")
        calls: list[tuple[str, str]] = []

        @words.cached("{first}:{second}")
        async def join(first: str, second: str = "z") -> str:
            calls.append((first, second))
            return first + second

        assert await join("x") == await join("x", "z") == await join(second="z", first="x") == "xz"
        assert await words.get(join.key("x")) == "xz"
        assert calls == [("x", "z")]
        await join.invalidate("x")
        await join("x")
        await join.refresh("x")
        assert len(calls) == 3

    async def test_health_and_ping(self, cache_target: CacheTarget) -> None:
        """Health reports a working Redis and channel, and ping returns seconds."""
        manager = await cache_target.start()
        health = manager.health()
        assert (health.l2, health.backplane, health.recovery_queue) == ("up", "live", 0)
        assert 0 <= await manager.ping() < 10

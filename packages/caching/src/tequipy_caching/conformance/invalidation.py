"""Conformance cases about invalidation: no later call returns the old value."""

import asyncio

import pytest

from tequipy_caching.conformance.target import CHANGES, CacheTarget, Factory


@pytest.mark.asyncio
class TestInvalidation:
    """The result of a load that began before an invalidation is returned to its callers, and not stored."""

    @pytest.mark.parametrize("name", ["words", "local", "remote", "cluster", "safe"])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_load_that_raced_a_change_is_not_kept(
        self, cache_target: CacheTarget, name: str, change: str
    ) -> None:
        """Callers that wait get the old value, later callers start a new load, and the old value is not stored."""
        words, load = await cache_target.cache(name), Factory("old", held=True)
        racing = asyncio.create_task(words.get_or_set("ada", load, ttl=30, tags=["team"]))
        await load.called()
        await CHANGES[change](words)
        assert await words.get_or_set("ada", Factory("new"), ttl=30) == "new"
        load.go.set()
        assert await racing == "old"
        assert await words.get("ada") == "new"

    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_batch_that_raced_a_change_is_not_kept(self, cache_target: CacheTarget, change: str) -> None:
        """Keys of a batch that were invalidated during its load are not stored."""
        words, load = await cache_target.cache("words"), Factory("old", held=True)
        racing = asyncio.create_task(words.get_or_set_many(["ada", "bob"], load.many, tags=["team"]))
        await load.called()
        await CHANGES[change](words)
        load.go.set()
        assert await racing == {"ada": "old", "bob": "old"}
        assert await words.get("ada") != "old"

    @pytest.mark.parametrize("name", ["words", "local", "remote"])
    async def test_a_deleted_tag_removes_its_values(self, cache_target: CacheTarget, name: str) -> None:
        """All values of this cache with a deleted tag are removed, set or loaded; they can be stored again."""
        manager = await cache_target.start()
        words, others = manager.cache(name, str), manager.cache("others", str)
        await others.set("ada", "Ada", tags=["red"])
        for _ in range(2):
            await words.set("ada", "Ada", tags=["red", "blue"])
            await words.get_or_set("bob", Factory("Bob"), tags=["blue"])
            await words.get_or_set_many(["cy"], Factory("Cy").many, tags=["green"])
            await words.set("dee", "Dee")
            await words.delete_by_tag("red", "green")
            assert await words.get_many(["ada", "bob", "cy", "dee"]) == {"bob": "Bob", "dee": "Dee"}
        await words.delete_by_tag()
        assert await others.get("ada") == "Ada"

    @pytest.mark.parametrize("name", ["words", "local", "remote"])
    async def test_a_cleared_cache_is_empty(self, cache_target: CacheTarget, name: str) -> None:
        """All values of the cache are removed, and those of other caches are not."""
        manager = await cache_target.start()
        words, others = manager.cache(name, str), manager.cache("others", str)
        await others.set("ada", "Ada")
        for _ in range(2):
            for number in range(10):
                await words.set(number, "word", tags=["team"])
            await words.clear()
            assert await words.get_many(range(10)) == {}
        assert await others.get("ada") == "Ada"

"""Conformance cases about several processes, each represented by a manager: together they behave like one cache."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tequipy_caching.cache.ports import MISSING, Cache
from tequipy_caching.conformance.target import CHANGES, CacheTarget, Factory, eventually


async def pair(target: CacheTarget, name: str) -> Sequence[Cache[Any]]:
    """Return the same cache in two processes."""
    if not target.shared:
        pytest.skip("these managers share nothing")
    return [await target.cache(name) for _ in range(2)]


@pytest.mark.asyncio
class TestProcesses:
    """Changes of one process reach the others."""

    async def test_a_value_is_shared(self, cache_target: CacheTarget) -> None:
        """A value that one process sets or loads is found by another."""
        one, two = await pair(cache_target, "words")
        await one.set("ada", "Ada")
        await one.get_or_set_many(["bob"], Factory("Bob").many, tags=["team"])
        assert await two.get_many(["ada", "bob"]) == {"ada": "Ada", "bob": "Bob"}
        await eventually(lambda: two.peek("bob") == "Bob")

    @pytest.mark.parametrize("name", ["words", "local"])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_change_drops_the_copies_of_others(self, cache_target: CacheTarget, name: str, change: str) -> None:
        """After a change in one process the other one no longer holds the old value."""
        one, two = await pair(cache_target, name)
        await two.get_or_set("ada", Factory("old"), tags=["team"])
        assert two.peek("ada") == "old"
        await CHANGES[change](one)
        await eventually(lambda: two.peek("ada") is MISSING)

    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_copy_found_in_the_shared_tier_is_dropped_too(self, cache_target: CacheTarget, change: str) -> None:
        """A copy that a process has read from the shared tier, where it was stored with a tag, is dropped too."""
        one, two = await pair(cache_target, "words")
        await one.set("ada", "old", tags=["team"])

        async def held() -> bool:
            assert await two.get("ada") == "old"
            return two.peek("ada") == "old"

        await eventually(held)
        await CHANGES[change](one)
        await eventually(lambda: two.peek("ada") is MISSING)
        assert await two.get("ada") == ("new" if change == "set" else None)

    @pytest.mark.parametrize("name", ["words", "remote", "cluster"])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_load_does_not_store_what_another_process_has_changed(
        self, cache_target: CacheTarget, name: str, change: str
    ) -> None:
        """The result of a load during a change of another process is returned, but not stored in any tier."""
        one, two = await pair(cache_target, name)
        load = Factory("old", held=True)
        racing = asyncio.create_task(two.get_or_set("ada", load, tags=["team"]))
        await load.called()
        await CHANGES[change](one)
        load.go.set()
        assert await racing == "old"
        assert two.peek("ada") is MISSING
        for words in (one, two):
            assert await words.get("ada") == ("new" if change == "set" else None)

    async def test_a_stale_value_of_another_process_is_served(self, cache_target: CacheTarget) -> None:
        """A value that another process stored and expired is served stale."""
        one, two = await pair(cache_target, "safe")
        await one.set("ada", "old")
        await one.expire("ada")
        assert await two.get_or_set("ada", Factory(ValueError("away"))) == "old"

    @pytest.mark.parametrize("name", ["soft", "soft-cluster"])
    async def test_a_batch_combines_stale_and_fresh_values(self, cache_target: CacheTarget, name: str) -> None:
        """A batch that serves stale values also has the fresh values that another process has stored."""
        one, two = await pair(cache_target, name)
        await one.set("ada", "old")
        await cache_target.advance(0.06)
        await two.set("bob", "Bob", ttl=60)
        load = Factory("new", held=True)
        assert await one.get_or_set_many(["ada", "bob"], load.many) == {"ada": "old", "bob": "Bob"}
        load.go.set()

    async def test_the_soft_timeout_applies_to_the_cluster_lock(self, cache_target: CacheTarget) -> None:
        """A caller that waits for the load of another process gets the stale value after its soft timeout."""
        one, two = await pair(cache_target, "soft-cluster")
        await one.set("ada", "old")
        await cache_target.advance(0.06)
        load, other = Factory("new", held=True), Factory("other")
        first = asyncio.create_task(one.get_or_set("ada", load))
        await load.called()
        assert await two.get_or_set("ada", other) == "old"
        assert not other.calls
        load.go.set()
        assert await first == "old"

    async def test_the_cluster_lock_is_one_load(self, cache_target: CacheTarget) -> None:
        """While one process loads, the other one waits and returns the loaded value, alone or in a batch."""
        one, two = await pair(cache_target, "cluster")
        load, other = Factory("Ada", held=True), Factory("other")
        first = asyncio.create_task(one.get_or_set("ada", load))
        await load.called()
        second = asyncio.create_task(two.get_or_set_many(["ada", "bob"], other.many))
        await other.called()
        load.go.set()
        assert await first == "Ada"
        assert await second == {"ada": "Ada", "bob": "other"}

    async def test_a_failed_load_releases_the_cluster_lock(self, cache_target: CacheTarget) -> None:
        """If the load of one process fails, the next process loads without waiting for the lease to end."""
        one, two = await pair(cache_target, "cluster")
        load = Factory(ValueError("away"), held=True)
        first = asyncio.create_task(one.get_or_set("ada", load))
        await load.called()
        second = asyncio.create_task(two.get_or_set("ada", Factory("Ada")))
        await asyncio.sleep(0.05)
        load.go.set()
        with pytest.raises(ValueError, match="away"):
            await first
        async with asyncio.timeout(4):
            assert await second == "Ada"

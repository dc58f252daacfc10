"""Conformance cases about loads: callers share one load, also if it fails or is slow."""

import asyncio
import traceback
from collections.abc import Sequence

import pytest

from tequipy_caching._exceptions import LoadTimeout, RecursiveLoad
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.ports import MISSING
from tequipy_caching.conformance.target import CHANGES, Absent, CacheTarget, Factory, eventually


@pytest.mark.asyncio
class TestLoads:
    """A factory is called as rarely as possible; its callers get its exceptions only without a stale value."""

    @pytest.mark.parametrize("name", ["words", "local", "remote", "cluster"])
    async def test_a_loaded_value_is_stored(self, cache_target: CacheTarget, name: str) -> None:
        """Later callers get the stored value without a load."""
        words, load = await cache_target.cache(name), Factory(None)
        assert [await words.get_or_set("ada", load) for _ in range(3)] == [None] * 3
        assert load.calls == 1

    @pytest.mark.parametrize("name", ["words", "local", "remote", "cluster"])
    async def test_a_thousand_misses_are_one_load(self, cache_target: CacheTarget, name: str) -> None:
        """All callers of a key during its load get the result of that one load."""
        words, load = await cache_target.cache(name), Factory("Ada", held=True)
        waiting = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(1000)]
        await load.called()
        load.go.set()
        assert await asyncio.gather(*waiting) == ["Ada"] * 1000
        assert load.calls == 1

    async def test_a_cancelled_caller_does_not_affect_the_others(self, cache_target: CacheTarget) -> None:
        """If a caller is cancelled, even the one that started the load, the others still get its result."""
        words, load = await cache_target.cache("words"), Factory("Ada", held=True)
        waiting = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(3)]
        await load.called()
        waiting[0].cancel()
        await asyncio.sleep(0)
        load.go.set()
        assert await asyncio.gather(*waiting[1:]) == ["Ada", "Ada"]
        assert load.calls == 1

    async def test_a_failed_load_is_not_stored(self, cache_target: CacheTarget) -> None:
        """All callers that wait get the exception, and the next caller starts a new load."""
        words, load = await cache_target.cache("words"), Factory(ValueError("no word"), held=True)
        waiting = [asyncio.create_task(words.get_or_set("ada", load)) for _ in range(10)]
        await load.called()
        load.go.set()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [ValueError] * 10
        assert await words.get_or_set("ada", Factory("Ada")) == "Ada"

    async def test_recursive_and_slow_loads_raise_their_own_exceptions(self, cache_target: CacheTarget) -> None:
        """A load that asks for its own key raises `RecursiveLoad`, one beyond the hard timeout `LoadTimeout`."""
        manager = await cache_target.start()
        words = manager.cache("words", str)

        async def load() -> str:
            return await words.get_or_set("ada", load)

        with pytest.raises(RecursiveLoad):
            await words.get_or_set("ada", load)
        with pytest.raises(LoadTimeout, match=r"over 0\.05 s"):
            await manager.cache("hasty", str).get_or_set("ada", Factory("Ada", held=True))
        with pytest.raises(TimeoutError, match="its own"):
            await manager.cache("hasty", str).get_or_set("ada", Factory(TimeoutError("its own")))
        released = asyncio.Event()

        async def stubborn() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                await released.wait()  # like a driver whose server does not answer
            return "Ada"

        with pytest.raises(LoadTimeout):
            await asyncio.wait_for(manager.cache("hasty", str).get_or_set("ada", stubborn), 20)
        released.set()

    async def test_negative_exceptions_are_cached(self, cache_target: CacheTarget) -> None:
        """An exception of the policy's `negative` types, or a subclass, is cached; `get` returns the default."""
        words, load = await cache_target.cache("shy"), Factory(Absent("no such word"))
        depths = []
        for _ in range(3):
            with pytest.raises(Absent) as caught:
                await words.get_or_set("ada", load)
            depths.append(len(traceback.extract_tb(caught.tb)))
        assert load.calls == 1
        assert depths[1] == depths[2]
        assert await words.get("ada", "default") == "default"
        assert words.peek("ada") is MISSING
        assert await words.get_or_set_many(["ada", "bob"], Factory("Bob").many) == {"bob": "Bob"}
        await words.delete("ada")
        assert await words.get_or_set("ada", Factory("Ada")) == "Ada"
        with pytest.raises(ValueError, match="no word"):
            await words.get_or_set("cy", Factory(ValueError("no word")))

    async def test_a_negative_entry_ends_like_a_value(self, cache_target: CacheTarget) -> None:
        """It is removed with its key, its tag or its cache, and its ttl is that of `negative`, not that of values."""
        words = await cache_target.cache("shy")
        for change in CHANGES.values():
            with pytest.raises(Absent):
                await words.get_or_set("ada", Factory(Absent("no such word")), tags=["team"])
            await change(words)
            assert await words.get_or_set("ada", Factory("new")) == "new"
            await words.delete("ada")
        coy = await cache_target.cache("coy")
        for _ in range(2):
            with pytest.raises(Absent):
                await coy.get_or_set("ada", Factory(Absent("no such word")))
            await cache_target.advance(0.06)
        assert await coy.get("ada", "default") == "default"
        with pytest.raises(Absent):
            await coy.get_or_set("ada", Factory("Ada"))

    async def test_the_exception_of_a_batch_is_not_cached(self, cache_target: CacheTarget) -> None:
        """The exception of a batch of several keys is not cached, because it is unknown which key caused it."""
        words, fail = await cache_target.cache("shy"), Factory(Absent("one of these words"))
        for _ in range(2):
            with pytest.raises(Absent):
                await words.get_or_set_many(["ada", "bob"], fail.many)
        assert await words.get_or_set("ada", Factory("Ada")) == "Ada"
        for _ in range(2):
            with pytest.raises(Absent):
                await words.get_or_set("bob", fail)
        assert fail.calls == 3

    @pytest.mark.parametrize("error", [ValueError("away"), None])
    async def test_a_stale_value_replaces_a_failed_load(
        self, cache_target: CacheTarget, error: Exception | None
    ) -> None:
        """With `fail_safe` a load that fails or times out returns the stale value, and is not repeated at each call."""
        words = await cache_target.cache("safe")
        await words.set("ada", "old")
        await cache_target.advance(0.06)
        assert await words.get("ada") is None
        load = Factory(error, held=error is None)
        assert await words.get_or_set("ada", load) == "old"
        assert await words.get_or_set_many(["ada"], load.many) == {"ada": "old"}
        assert load.calls == 1
        await cache_target.advance(0.06)
        assert await words.get_or_set("ada", Factory("new")) == "new"

    @pytest.mark.parametrize("new", [0, 2])
    async def test_a_batch_serves_stale_values_for_all_keys_or_none(self, cache_target: CacheTarget, new: int) -> None:
        """If each missing key has a stale value, these are returned; else the batch fails."""
        words = await cache_target.cache("safe")
        fail = Factory(ValueError("away"))
        await words.set(1, "old")
        await words.set(3, "old")
        await cache_target.advance(0.06)
        with pytest.raises(ValueError, match="away"):
            await words.get_or_set_many(sorted([1, 3, new]), fail.many)
        assert await words.get_or_set_many([1, 3], fail.many) == {1: "old", 3: "old"}
        assert fail.calls == 1
        await cache_target.advance(0.06)
        assert await words.get_or_set_many([1, 3], fail.many) == {1: "old", 3: "old"}
        assert fail.calls == 2

    async def test_a_slow_load_continues_after_the_stale_value(self, cache_target: CacheTarget) -> None:
        """After the soft timeout callers get the stale value, and the new one as soon as it is loaded."""
        words, load = await cache_target.cache("soft"), Factory("new", held=True)
        await words.set("ada", "old")
        await cache_target.advance(0.06)
        assert await words.get_or_set("ada", load) == "old"
        load.go.set()
        await eventually(lambda: words.peek("ada") == "new")
        assert load.calls == 1

    async def test_a_deleted_value_is_never_served_stale(self, cache_target: CacheTarget) -> None:
        """After delete, clear or a deleted tag the stale value is not served; after expire it is."""
        words = await cache_target.cache("safe")
        fail = Factory(ValueError("away"))
        for gone in (words.delete("ada"), words.clear(), words.delete_by_tag("team")):
            await words.set("ada", "old", tags=["team"])
            await gone
            with pytest.raises(ValueError, match="away"):
                await words.get_or_set("ada", fail)
        await words.set("ada", "old")
        await words.expire("ada")
        assert await words.get("ada") is None
        assert await words.get_or_set("ada", fail) == "old"

    async def test_a_value_is_refreshed_ahead_of_its_end(self, cache_target: CacheTarget) -> None:
        """After a share of the ttl a hit returns the value and starts a load in the background, which may fail."""
        words = await cache_target.cache("ahead")
        await words.get_or_set("ada", Factory("old"))
        load = Factory(ValueError("away"))
        await cache_target.advance(0.1)
        assert await words.get_or_set("ada", load) == "old"
        await load.called()
        await words.set("ada", "old")
        load = Factory("new")
        await cache_target.advance(0.1)
        assert await words.get_or_set("ada", load) == "old"
        await eventually(lambda: words.peek("ada") == "new")
        assert load.calls == 1

    @pytest.mark.parametrize("name", ["words", "local", "remote", "cluster"])
    async def test_a_batch_is_one_load(self, cache_target: CacheTarget, name: str) -> None:
        """All missing keys are one load; keys that the factory omits are absent from the result."""
        words = await cache_target.cache(name)
        await words.set(1, "one")
        asked: list[list[Key]] = []

        async def load(keys: Sequence[Key]) -> dict[Key, str]:
            asked.append(list(keys))
            return {key: str(key) for key in [*keys, "unasked"] if key != 4}

        for _ in range(2):
            assert await words.get_or_set_many([1, 2, 3], load) == {1: "one", 2: "2", 3: "3"}
        assert await words.get_or_set_many([3, 4], load) == {3: "3"}
        assert asked == [[2, 3], [4]]
        assert await words.get("unasked") is None

    async def test_single_calls_and_batches_share_loads(self, cache_target: CacheTarget) -> None:
        """A caller of a key that a batch loads joins it; if the factory omits the key, the caller starts a new load."""
        words, go = await cache_target.cache("words"), asyncio.Event()

        async def load(keys: Sequence[Key]) -> dict[Key, str]:
            await go.wait()
            return {keys[0]: "batch"}

        batch = asyncio.create_task(words.get_or_set_many(["a", "b"], load))
        await asyncio.sleep(0)
        singles = [asyncio.create_task(words.get_or_set(key, Factory("single"))) for key in ("a", "b")]
        await asyncio.sleep(0)
        go.set()
        assert await batch == {"a": "batch"}
        assert await asyncio.gather(*singles) == ["batch", "single"]

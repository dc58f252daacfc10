"""Conformance cases about the expiring set, in one process and in several."""

from typing import Any

import pytest

from tequipy_caching.conformance.target import CacheTarget, eventually


@pytest.mark.asyncio
class TestSets:
    """Members are in the set in all processes, until they expire."""

    async def test_members_are_in_the_set_until_they_expire(self, cache_target: CacheTarget) -> None:
        """A member is in the set at once and until it expires; other strings are not."""
        revoked = (await cache_target.start()).expiring_set("revoked")
        await revoked.add("ada", "bob", ttl=0.2)
        await revoked.add("eve", ttl=60)
        await revoked.add(ttl=60)
        assert [member in revoked for member in ("ada", "bob", "eve", "dan", 1)] == [True, True, True, False, False]
        assert [await revoked.contains(member) for member in ("ada", "dan")] == [True, False]
        assert await revoked.contains_any(("dan", "ada"))
        assert not await revoked.contains_any(("dan", "joe"))
        assert not await revoked.contains_any(())
        await cache_target.advance(0.2)
        await eventually(lambda: "ada" not in revoked)
        assert not await revoked.contains("bob")
        assert not await revoked.contains_any(("ada", "bob"))
        assert "eve" in revoked

    async def test_adding_again_keeps_the_later_expiry(self, cache_target: CacheTarget) -> None:
        """A second `add` has an effect only if its ttl ends later."""
        revoked = (await cache_target.start()).expiring_set("revoked")
        await revoked.add("ada", ttl=60)
        await revoked.add("ada", ttl=0.05)
        await revoked.add("bob", ttl=0.05)
        await revoked.add("bob", ttl=60)
        await cache_target.advance(0.1)
        assert ("ada" in revoked, "bob" in revoked) == (True, True)

    async def test_the_source_is_read_first(self, cache_target: CacheTarget) -> None:
        """A set with a source is live after the source was read, and contains its members."""

        async def source() -> dict[str, float]:
            return {"ada": 60, "old": -5}

        revoked = (await cache_target.start()).expiring_set("revoked", source=source)
        assert not revoked.live
        assert await revoked.contains("ada")
        await eventually(lambda: revoked.live)
        assert ("ada" in revoked, "old" in revoked, "bob" in revoked) == (True, False, False)

    async def test_wrong_use_of_a_set_is_refused(self, cache_target: CacheTarget) -> None:
        """A second source for a name, and invalid names, ttls and members are refused."""
        manager = await cache_target.start()
        revoked = manager.expiring_set("revoked")
        assert manager.expiring_set("revoked") is revoked

        async def source() -> dict[str, float]:
            return {}

        with pytest.raises(ValueError, match="has another source"):
            manager.expiring_set("revoked", source=source)
        with pytest.raises(ValueError, match="name must be"):
            manager.expiring_set("a:b")
        for ttl in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="ttl"):
                await revoked.add("ada", ttl=ttl)
        number: Any = 1
        with pytest.raises(TypeError, match="a member is a str, not int"):
            await revoked.add("ada", number, ttl=5)
        with pytest.raises(ValueError, match="surrogates"):
            await revoked.add("ada", "\ud800", ttl=5)
        assert "ada" not in revoked

    async def test_members_reach_all_processes(self, cache_target: CacheTarget) -> None:
        """A member that one process adds is in the set of running processes, and of those that start later."""
        if not cache_target.shared:
            pytest.skip("these managers share nothing")
        one, two = [(await cache_target.start()).expiring_set("revoked") for _ in range(2)]
        await one.add("ada", ttl=60)
        await eventually(lambda: "ada" in two)
        late = (await cache_target.start()).expiring_set("revoked")
        await eventually(lambda: late.live and "ada" in late)

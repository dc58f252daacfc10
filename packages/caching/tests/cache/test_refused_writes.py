"""Redis answers and refuses writes: no process serves deleted values, then or later."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import MISSING, CacheHealth
from tequipy_caching.cache.recovery import TRUST_AFTER
from tequipy_devstack.servers import ValkeyServer

from ..server_commands import command
from .refusals import REFUSALS, Refusal, fail_to_save, fill, make_room, url


async def test_a_process_keeps_what_it_loads_when_a_new_cache_meets_full_memory(
    start: Any, server: ValkeyServer, factory: Any, eventually: Any
) -> None:
    """In a server that was full before the cache's first value, a deleted key is loaded once and then in memory."""
    manager = await start(url(server))
    await eventually(lambda: manager.backplane.live)
    await fill(server)
    words, load = manager.cache("words", str), factory("new")
    await words.delete("ada")
    assert [await words.get_or_set("ada", load) for _ in range(3)] == ["new"] * 3
    assert load.calls == 1


@pytest.mark.usefixtures("quick_probes")
async def test_a_refused_delete_reaches_all_processes(
    start: Any, server: ValkeyServer, refusal: Refusal, factory: Any, eventually: Any
) -> None:
    """A value that is deleted while Redis refuses writes is served by no process, from L1 or L2, then or later."""
    one, other = [await start(url(server), l2_timeout=1) for _ in range(2)]
    mine, theirs = one.cache("words", str), other.cache("words", str)
    remote = other.cache("remote", str)
    for number in range(40):
        await mine.set(number, "old", tags=["team"] if number >= 30 else ())
        await one.cache("remote", str).set(number, "old")
        assert await theirs.get(number) == await remote.get(number) == "old"
    await refusal.begin(server)
    stale = 0
    for number in range(10):
        await mine.delete(number)
        await one.cache("remote", str).delete(number)
        await eventually(lambda number=number: theirs.peek(number) is MISSING)
        await asyncio.sleep(0)
        stale += await theirs.get(number) == "old"
        stale += await remote.get(number) == "old"
    await mine.set(10, "new")
    await mine.expire(11)
    await mine.delete_by_tag("team")
    await eventually(lambda: all(theirs.peek(number) is MISSING for number in (10, 11, *range(30, 40))))
    for number in (10, 11, *range(30, 40)):
        stale += await theirs.get_or_set(number, factory("new")) == "old"
    await one.cache("others", str).clear()
    print(f"stale reads while {refusal.code}: {stale} of 32")
    assert stale == 0
    await refusal.end(server)
    await eventually(lambda: one.health().l2 == other.health().l2 == "up" and not other.health().recovery_queue)
    third = await start(url(server))
    for number in (*range(12), *range(30, 40)):
        assert await third.cache("words", str).get(number) in {None, "new"}
    assert await third.cache("words", str).get(20) == "old"


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize("code", ["MISCONF", "READONLY", "NOREPLICAS", "NOPERM"])
async def test_a_process_that_starts_meanwhile_does_not_read_l2(
    start: Any, server: ValkeyServer, code: str, factory: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts during a refusal reads nothing from L2 until others must have replayed their deletes.

    Its own deletes reach the other processes.
    """
    refusal = next(each for each in REFUSALS.values() if each.code == code)
    one = await start(url(server), l2_timeout=1)
    words = one.cache("words", str)
    for key in ("deleted", "kept", "deleted by it"):
        await words.set(key, "old")
    await refusal.begin(server)
    await words.delete("deleted")
    # Without permissions it cannot read the channel's position, so that its L1 is not used either.
    late = await start(url(server), l2_timeout=1, live=code != "NOPERM")
    theirs = late.cache("words", str)
    await eventually(lambda: late.health().l2 == "refusing")
    assert await theirs.get_many(["deleted", "kept"]) == {}
    assert await theirs.get_or_set("deleted", factory("new")) == "new"
    assert await theirs.get("deleted") in {"new", None}  # from its own L1, which receives changes
    await words.delete("deleted")
    await eventually(lambda: theirs.peek("deleted") is MISSING)
    await theirs.delete("deleted by it")
    await eventually(lambda: words.peek("deleted by it") is MISSING)
    monkeypatch.setattr("tequipy_caching.cache.recovery.TRUST_AFTER", 1)
    await refusal.end(server)
    await eventually(lambda: late.health().l2 == "up" and late.health().backplane == "live")
    assert await theirs.get("kept") is None

    async def believes() -> bool:
        return bool(await theirs.get("kept") == "old")

    await eventually(believes)
    assert await theirs.get("deleted") is None


async def test_a_process_that_starts_when_memory_is_full_reads_no_deleted_value(
    start: Any, server: ValkeyServer, factory: Any, eventually: Any
) -> None:
    """If memory is full, deletes are not refused, so a process that starts meanwhile may read L2, and does."""
    one = await start(url(server), l2_timeout=1)
    words = one.cache("words", str)
    for key in ("deleted", "kept"):
        await words.set(key, "old")
    await fill(server)
    await words.delete("deleted")
    late = await start(url(server), l2_timeout=1)
    theirs = late.cache("words", str)
    assert await theirs.get_many(["deleted", "kept"]) == {"kept": "old"}
    assert await theirs.get_or_set("deleted", factory("new")) == "new"
    await words.delete("deleted")
    await eventually(lambda: theirs.peek("deleted") is MISSING)
    assert await theirs.get("deleted") is None
    await make_room(server)
    assert await (await start(url(server))).cache("words", str).get_many(["deleted", "kept"]) == {"kept": "old"}


async def test_all_is_well_soon_after_writes_are_accepted_again(
    start: Any, server: ValkeyServer, refusal: Refusal, eventually: Any
) -> None:
    """All refused changes are in Redis before a process that started meanwhile would use it again, 30 s later."""
    one, other = [await start(url(server), l2_timeout=1) for _ in range(2)]
    words = one.cache("words", str)
    for key in ("deleted", "changed", "kept"):
        await words.set(key, "old")
    await refusal.begin(server)
    await words.delete("deleted")
    await words.set("changed", "new")
    await refusal.end(server)
    accepted = asyncio.get_running_loop().time()

    def healed() -> bool:
        return all(each.health() == CacheHealth("up", "live", 0) for each in (one, other))

    await eventually(healed, TRUST_AFTER)
    print(f"{refusal.code}: healed {asyncio.get_running_loop().time() - accepted:.1f} s after writes were accepted")
    third = (await start(url(server))).cache("words", str)
    found = await third.get_many(["deleted", "changed", "kept"])
    assert found.pop("changed", "new") == "new"
    assert found == {"kept": "old"}
    await words.set("changed", "newest")
    assert await third.get("changed") == "newest"


async def test_a_tombstone_replaces_a_value_when_memory_is_full(
    start: Any, server: ValkeyServer, eventually: Any
) -> None:
    """If memory is full, a value is not stored; a tombstone, which is small, replaces it."""
    one, other = [await start(url(server), l2_timeout=1) for _ in range(2)]
    await one.cache("words", str).set("ada", "old")
    assert await other.cache("words", str).get("ada") == "old"
    await fill(server)
    await one.cache("words", str).set("ada", "x" * 100_000)
    assert await one.cache("words", str).get("ada") == "x" * 100_000
    await eventually(lambda: other.cache("words", str).peek("ada") is MISSING)  # the message is in transit
    assert await other.cache("words", str).get("ada") is None
    assert one.health().recovery_queue == 0
    sizes = [
        await command(server, "STRLEN", key) for key in await command(server, "KEYS", f"{one.link.prefix}:cache:*")
    ]
    assert sizes == [24]


async def test_a_cache_that_is_created_later_does_not_read_l2(
    start: Any, server: ValkeyServer, eventually: Any
) -> None:
    """A process that first uses a cache after a refused delete does not use the values that Redis holds of it."""
    one, other = [await start(url(server), l2_timeout=1) for _ in range(2)]
    await one.cache("words", str).set("ada", "old")
    await fail_to_save(server)
    await one.cache("words", str).delete("ada")
    await eventually(lambda: "cache:words" in other.backplane._refused_topics)
    assert await other.cache("words", str).get("ada") is None


@pytest.mark.usefixtures("quick_probes")
async def test_refused_members_of_a_set_reach_all_processes(
    open_set: Any, server: ValkeyServer, refusal: Refusal, eventually: Any
) -> None:
    """A member added while Redis refuses writes is a member in all processes at once, and in Redis afterwards."""
    (_, one), (manager, other) = [await open_set(url(server), l2_timeout=1) for _ in range(2)]
    await refusal.begin(server)
    await one.add("ada", ttl=600)
    await eventually(lambda: "ada" in other, 2)
    await refusal.end(server)
    await eventually(lambda: not manager.health().recovery_queue)
    _, third = await open_set(url(server))
    assert "ada" in third


async def test_an_unknown_refused_change_flushes_l1(start: Any, redis_url: str, eventually: Any) -> None:
    """A refused change that cannot be parsed may mean any change: L1 is flushed, and the channel goes on."""
    manager = await start(redis_url)
    words = manager.cache("words", str)
    for garbage in (b'["refused"', b'["refused", 1, 2]', b'["refused", "x", "cache:words", 5]'):
        await words.set("ada", "Ada")
        assert words.peek("ada") == "Ada"
        async with Redis.from_url(redis_url) as redis:
            await redis.publish(manager.link.channel, garbage)
        await eventually(lambda: words.peek("ada") is MISSING)
    assert manager.backplane.live

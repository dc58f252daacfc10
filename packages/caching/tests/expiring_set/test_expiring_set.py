"""Expiring sets: members reach all processes, sets are compared with their source, and `live` is reliable."""

import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.expiring_set import shared_set
from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_devstack.servers import ValkeyServer

WATCHER = Path(__file__).with_name("watcher.py")

Start = Callable[..., Awaitable[tuple[TieredCacheManager, SharedExpiringSet]]]


class Records:
    """The records of the caller that `source` reads."""

    def __init__(self, **members: float) -> None:
        self.members: Mapping[str, float] = members
        self.reads = 0
        self.go = asyncio.Event()
        self.go.set()
        self.broken = False

    async def read(self) -> Mapping[str, float]:
        self.reads += 1
        await self.go.wait()
        if self.broken:
            raise ConnectionError("the database is away")
        return self.members


async def test_a_member_reaches_all_processes(open_set: Start, redis_url: str, eventually: Any) -> None:
    """A member reaches running and later processes, and is gone everywhere when its ttl ends."""
    sets = [(await open_set(redis_url))[1] for _ in range(4)]
    await sets[0].add("ada", ttl=3)
    await sets[1].add("bob", "eve", ttl=60)
    await eventually(lambda: all({"ada", "bob", "eve"} <= set(each._members.ttls()) for each in sets))
    _, late = await open_set(redis_url)
    assert {"ada", "bob", "eve"} <= set(late._members.ttls())
    await eventually(lambda: all("ada" not in each for each in [*sets, late]))
    assert all("bob" in each for each in [*sets, late])


async def test_the_longer_ttl_is_kept_everywhere(open_set: Start, redis_url: str, eventually: Any) -> None:
    """Adding a member again with a shorter ttl changes nothing, in other processes and in Redis."""
    (_, one), (_, other) = await open_set(redis_url), await open_set(redis_url)
    await one.add("ada", ttl=60)
    await one.add("ada", ttl=0.01)
    await other.add("ada", "mark", ttl=0.02)
    await eventually(lambda: "mark" in one._members._expiries)
    _, late = await open_set(redis_url)
    assert all(each._members.ttls()["ada"] > 50 for each in (one, other, late))


async def test_expired_members_leave(open_set: Start, redis_url: str, redis_prefix: str, eventually: Any) -> None:
    """Expired members leave memory and Redis; only the set's sentinel stays in Redis."""
    _, revoked = await open_set(redis_url)
    await revoked.add("ada", ttl=3)
    for number in range(200):
        await revoked.add(str(number), ttl=0.001)
    async with Redis.from_url(redis_url) as redis:
        assert await redis.zcard(f"{redis_prefix}:set:revoked") <= 51
        await eventually(lambda: "ada" not in revoked)
        await revoked.add("last", ttl=0.001)
        await eventually(lambda: "last" not in revoked)

        async def others_have_left() -> bool:
            await revoked.add("after", ttl=0.001)
            return bool(await redis.zcard(f"{redis_prefix}:set:revoked") <= 2)

        # The clocks of Redis and of this process may differ by a fraction of a member's ttl.
        await eventually(others_have_left)
    for number in range(10):
        await revoked.add(f"new {number}", ttl=60)
    assert len(revoked._members) == len(revoked._members._by_expiry) == 10


async def test_an_empty_redis_is_filled_again(open_set: Start, private_redis: ValkeyServer, eventually: Any) -> None:
    """After a restart without data, the source is read again, and the members that processes know are added again."""
    records = Records()
    _, one = await open_set(private_redis.url(), records.read)
    await one.add("ada", ttl=600)
    reads = records.reads
    records.members = {"bob": 600}
    private_redis.restart(empty=True)
    await eventually(lambda: one.live and records.reads > reads)
    assert {"ada", "bob"} <= set(one._members.ttls())
    _, late = await open_set(private_redis.url())
    assert {"ada", "bob"} <= set(late._members.ttls())


async def test_a_source_that_fails_is_read_again(
    open_set: Start, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until the source has been read, the set is not live, and answers from Redis and this process."""
    monkeypatch.setattr(shared_set, "RETRY_AFTER", 0.05)
    records = Records(ada=600)
    records.broken = True
    manager, one = await open_set(redis_url, records.read, live=False)
    await eventually(lambda: records.reads > 2 and manager.backplane.live)
    assert not one.live
    assert not await one.contains("ada")
    records.broken = False
    await eventually(lambda: one.live)
    assert "ada" in one
    assert "expiring_set_source_failed" in caplog.text


@pytest.mark.parametrize("answer", [["ada"], {"ada": None}, {1: 5}, {"\ud800": 5}, asyncio.CancelledError()])
async def test_a_source_with_an_invalid_result_is_read_again(
    open_set: Start, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """Whatever a source returns or raises, it is read again, and the set becomes live when it succeeds."""
    monkeypatch.setattr(shared_set, "RETRY_AFTER", 0.05)
    reads = 0

    async def source() -> Any:
        nonlocal reads
        reads += 1
        if reads > 2:
            return {"ada": math.inf}
        if isinstance(answer, asyncio.CancelledError):
            raise answer
        return answer

    _, one = await open_set(redis_url, source, live=False)
    await eventually(lambda: one.live)
    assert "ada" in one
    assert reads == 3


async def test_contains_waits_once_for_a_source_that_hangs(
    open_set: Start, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first calls of `contains` wait a short time for a source that hangs; later calls do not."""
    monkeypatch.setattr(shared_set, "CONTAINS_TIMEOUT", 0.3)
    records = Records(ada=600)
    records.go.clear()
    manager, one = await open_set(redis_url, records.read, live=False)
    await eventually(lambda: manager.backplane.live and records.reads == 1)
    started = time.monotonic()
    assert not await one.contains("ada")
    assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    for _ in range(20):
        assert not await one.contains("ada")
    assert time.monotonic() - started < 20 * 0.3
    asked = asyncio.create_task(one.contains("ada"))
    records.go.set()
    await asked
    await eventually(lambda: one.live)
    assert await one.contains("ada")


async def test_contains_waits_for_the_first_read_of_the_source(
    open_set: Start, redis_url: str, eventually: Any
) -> None:
    """At the start, `contains` does not return False before the source has been read."""
    records = Records(ada=600)
    records.go.clear()
    _, one = await open_set(redis_url, records.read, live=False)
    asked = [asyncio.create_task(one.contains(member)) for member in ("ada", "bob")]
    await eventually(lambda: records.reads > 0)
    records.go.set()
    assert await asyncio.gather(*asked) == [True, False]


async def test_contains_waits_for_a_repeated_read_of_the_source(
    open_set: Start, redis_url: str, eventually: Any
) -> None:
    """When members may have been lost, `contains` does not return False before the source has been read again."""
    records = Records()
    _, one = await open_set(redis_url, records.read)
    records.members, reads = {"ada": 600}, records.reads
    records.go.clear()
    one.on_gap()
    asked = asyncio.create_task(one.contains("ada"))
    await eventually(lambda: records.reads > reads)
    records.go.set()
    assert await asked


async def spread(revoked: SharedExpiringSet, url: str, prefix: str, adds: int) -> list[float]:
    """Add members one at a time; for each, return the seconds until the last of three other processes had it."""
    watchers = []
    for _ in range(3):
        watcher = await asyncio.create_subprocess_exec(
            sys.executable, WATCHER, url, prefix, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        watchers.append(watcher)
    for watcher in watchers:
        assert watcher.stdout is not None
        assert await watcher.stdout.readline() == b"live\n"
    added = {}
    for number in range(adds):
        added[str(number)] = time.monotonic()
        await revoked.add(str(number), ttl=600)
        await asyncio.sleep(0.005)
    await revoked.add("end", ttl=600)
    answers = await asyncio.gather(*(watcher.communicate(b"") for watcher in watchers))
    heard = [json.loads(output) for output, _ in answers]
    return sorted(max(each[member] for each in heard) - moment for member, moment in added.items())


async def test_other_processes_receive_every_member(open_set: Start, redis_url: str, redis_prefix: str) -> None:
    """Three other processes receive every member."""
    _, revoked = await open_set(redis_url)
    delays = await spread(revoked, redis_url, redis_prefix, 50)
    print(f"added to known by three others: p50 {statistics.median(delays) * 1000:.1f} ms")
    assert len(delays) == 50


@pytest.mark.prove
async def test_prove_how_fast_a_member_reaches_all_processes(
    open_set: Start, redis_url: str, redis_prefix: str
) -> None:
    """Measure the time from `add` in one process to membership in three others, and in one started later."""
    _, revoked = await open_set(redis_url)
    delays = await spread(revoked, redis_url, redis_prefix, 1000)
    p50, p99 = statistics.median(delays), delays[int(0.99 * len(delays))]
    print(f"\nExpiringSet, 1,000 adds, known by three others: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")
    _, late = await open_set(redis_url)
    assert len(late._members.ttls()) == 1001
    print("a process started afterwards knows all 1,001")

"""A stress test: four processes load and read what a fifth invalidates; at the end no process holds an old value."""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tequipy_caching.redis.cancellation import cancel_and_wait
from tequipy_devstack.servers import ValkeyServer

from .stress_program import KEYS, NUMBER, RESULTS, TIERS, Truth, process

READERS = 4
PROGRAM = Path(__file__).with_name("stress_program.py")


async def lines(processes: Sequence[asyncio.subprocess.Process], expected: bytes) -> None:
    """Read one line of each process."""
    for each in processes:
        assert each.stdout is not None
        assert await each.stdout.readline() == expected


async def run(
    url: str, prefix: str, file: Path, *, invalidations: int, guarded: bool, seconds: float = 0
) -> tuple[int, int]:
    """Run all processes; return how many old values Redis holds, and how many the processes hold."""
    file.write_bytes(bytes(KEYS * NUMBER.size))  # noqa: ASYNC240 -- once

    async def start(role: str) -> asyncio.subprocess.Process:
        arguments = (str(PROGRAM), role, url, prefix, str(file), str(invalidations), str(int(guarded)), str(seconds))
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)

    readers = [await start("reader") for _ in range(READERS)]
    try:
        await lines(readers, b"ready\n")
        async with process(url, prefix, tiers="l2") as (manager, numbers):
            await manager.ping()  # opens a connection: a later one begins a new epoch if the state was evicted
            writing = await start("writer")
            assert await writing.wait() == 0
            for each in readers:
                assert each.stdin is not None
                each.stdin.write(b"stop\n")
            # Repeatedly, because what is stored in Redis now may soon be evicted.
            stopping = asyncio.create_task(lines(readers, b"stopped\n"))
            shared: set[tuple[Any, int]] = set()
            while not stopping.done():
                shared |= (await numbers.get_many(range(KEYS))).items()
                await asyncio.sleep(0.01)
            await stopping
        answers = [json.loads((await each.communicate())[0]) for each in readers]
    finally:
        for each in readers:
            if each.returncode is None:
                each.kill()
    truth = Truth(file)
    totals: Counter[str] = sum(map(Counter, answers), Counter())
    in_redis = sum(value != truth[key] for key, value in shared)
    hits = {tier: totals[f"{tier} hit"] / max(1, sum(totals[f"{tier} {each}"] for each in RESULTS)) for tier in TIERS}
    print(
        f"\n{invalidations} invalidations, {totals['reads']} reads, {READERS} processes,"
        f" {'guarded' if guarded else 'no guard'}: stale are {in_redis} of {len(shared)} values in Redis"
        f" and {totals['stale']} of {totals['held']} in memory;"
        f" hit ratio: L1 {hits['l1']:.1%}, L2 {hits['l2']:.1%} of the rest"
    )
    assert shared or totals["held"]
    return in_redis, totals["stale"]


@pytest.mark.parametrize(
    "invalidations", [500, pytest.param(20_000, marks=[pytest.mark.prove, pytest.mark.timeout(600)])]
)
async def test_nothing_stale_is_left(redis_url: str, redis_prefix: str, tmp_path: Path, invalidations: int) -> None:
    """However loads and invalidations overlap, at the end neither Redis nor any L1 holds an old value."""
    assert await run(redis_url, redis_prefix, tmp_path / "truth", invalidations=invalidations, guarded=True) == (0, 0)


FILLER = 20_000
POLICIES = ("noeviction", "allkeys-lru", "allkeys-lfu", "volatile-ttl", "volatile-lru")
BRIEF = ("noeviction", "volatile-ttl")
"""The policies of the short form in `make test`: nothing is evicted, or the cache's keys first."""


@contextlib.asynccontextmanager
async def pressed(server: ValkeyServer, policy: str) -> AsyncIterator[Redis]:
    """Fill a server's memory so that it evicts or refuses writes, and continue during the block.

    The fillers are few and are written so often that they are used as recently as the cache's keys, which would
    otherwise never be evicted.
    """
    filled = asyncio.Event()

    async def fill() -> None:
        number = 0
        while True:
            with contextlib.suppress(ResponseError):
                await redis.set(f"filler:{number % 1000}", "x" * FILLER, px=600_000)
                await redis.get(f"filler:{number % 1000}")
            number += 1
            if number == 1000:
                filled.set()
            if filled.is_set():
                await asyncio.sleep(0.001)

    async with Redis.from_url(server.url()) as redis:
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory-policy", policy)
        await redis.config_set("lfu-log-factor", 1_000_000)  # all keys that are used twice count as used equally often
        await redis.config_set("maxmemory", used + 4_000_000)
        filling = asyncio.create_task(fill())
        await filled.wait()
        try:
            yield redis
        finally:
            await cancel_and_wait(filling)  # redis-py may swallow one cancellation


@contextlib.asynccontextmanager
async def evicted_keys(redis: Redis, prefix: str) -> AsyncIterator[Counter[str]]:
    """Count the evicted keys with a prefix, by the second part of their names, as the server reports them."""
    evicted: Counter[str] = Counter()

    async def count() -> None:
        async for message in channel.listen():
            if message["type"] == "pmessage":
                evicted[message["channel"].decode().split(":")[2]] += 1

    await redis.config_set("notify-keyspace-events", "Ke")  # of each key, its evictions
    async with redis.pubsub() as channel:
        await channel.psubscribe(f"__keyspace@*__:{prefix}:*")
        counting = asyncio.create_task(count())
        try:
            yield evicted
        finally:
            await cancel_and_wait(counting)


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        *(
            pytest.param(policy, 0, marks=() if policy in BRIEF else [pytest.mark.prove, pytest.mark.quick])
            for policy in POLICIES
        ),
        *(pytest.param(policy, 120, marks=[pytest.mark.prove, pytest.mark.timeout(900)]) for policy in POLICIES),
    ],
)
async def test_nothing_stale_is_left_when_memory_is_full(
    private_redis: ValkeyServer,
    redis_prefix: str,
    tmp_path: Path,
    policy: str,
    seconds: float,
) -> None:
    """Whatever Redis evicts or refuses, tombstones and marks included, no load stores an old value."""
    async with pressed(private_redis, policy) as redis, evicted_keys(redis, redis_prefix) as evicted:
        found = await run(
            private_redis.url(),
            redis_prefix,
            tmp_path / "truth",
            invalidations=500,
            guarded=True,
            seconds=seconds,
        )
        others = (await redis.info("stats"))["evicted_keys"] - evicted.total()
        refusals = (await redis.info("errorstats")).get("errorstat_OOM", {"count": 0})["count"]
    print(
        f"{policy}: evicted {evicted.total()} keys of the cache {dict(evicted)} and {others} others,"
        f" {refusals} refused for memory, stale {found}"
    )
    assert found == (0, 0)
    assert refusals if policy == "noeviction" else evicted["cache"]


@pytest.mark.prove
@pytest.mark.quick
async def test_without_the_guard_stale_values_are_left(redis_url: str, redis_prefix: str, tmp_path: Path) -> None:
    """The same run without the guard leaves old values, so the test can fail."""
    for number in range(10):  # usually the first run
        prefix = f"{redis_prefix}-{number}"
        if sum(await run(redis_url, prefix, tmp_path / "truth", invalidations=500, guarded=False)):
            return
    pytest.fail("the usual design left nothing stale")

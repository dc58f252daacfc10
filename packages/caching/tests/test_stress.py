"""A stress test: four processes load and read what a fifth invalidates; at the end no process holds an old value.

Run as a program, this file is one of the processes.
"""

import asyncio
import contextlib
import itertools
import json
import mmap
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from struct import Struct
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tequipy_caching import MISSING, Cache, CachePolicy
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.cache.invalidation_guard import InvalidationGuards
from tequipy_caching.redis import link, scripts
from tequipy_caching.redis.backplane import ANSWER_TIMEOUT, PING_AFTER
from tequipy_caching.redis.cancellation import cancel_and_wait
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer

KEYS = 50
READERS = 4
TASKS = 10
LOAD_SECONDS = (0.003, 0.003, 0.003, 0.3)
TIERS, RESULTS = ("l1", "l2"), ("hit", "miss")
_NUMBER = Struct("q")
random = Random()  # noqa: S311 -- no secret


class Truth:
    """The database: the versions of all keys, in a file that all processes share."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), KEYS * _NUMBER.size)

    def __getitem__(self, key: int) -> int:
        return int(_NUMBER.unpack_from(self._map, key * _NUMBER.size)[0])

    def bump(self, key: int) -> int:
        """Commit a new version."""
        _NUMBER.pack_into(self._map, key * _NUMBER.size, self[key] + 1)
        return self[key]


@contextlib.asynccontextmanager
async def process(
    url: str, prefix: str, registry: CollectorRegistry | None = None, tiers: Literal["l1+l2", "l2"] = "l1+l2"
) -> AsyncIterator[tuple[TieredCacheManager, Cache[int]]]:
    """Start the cache of one process."""
    policies = {"numbers": CachePolicy(ttl=600, hard_timeout=5, tiers=tiers)}
    settings = CacheSettings(url=SecretStr(url), prefix=prefix, policies=policies, l2_timeout=10)
    async with build_cache(settings, registry=registry) as manager:
        assert isinstance(manager, TieredCacheManager)
        while not manager.backplane.live:
            await asyncio.sleep(0.01)
        yield manager, manager.cache("numbers", int)


async def read(numbers: Cache[int], truth: Truth, stopped: asyncio.Event) -> int:
    """Read one or several keys, and load missing ones as slowly as a database."""
    reads = 0

    async def load(keys: Sequence[Any]) -> dict[Any, int]:
        found = {key: truth[key] for key in keys}
        # Some loads are slow, so that their marks and the tombstones of later deletes may be evicted meanwhile.
        await asyncio.sleep(random.expovariate(1 / random.choice(LOAD_SECONDS)))
        return found

    async def load_one(key: int) -> int:
        return (await load([key]))[key]

    while not stopped.is_set():
        key = random.randrange(KEYS)
        tags = [f"tag:{key % 5}"]
        match random.randrange(10):
            case 0:
                await numbers.get_or_set_many([(key + step) % KEYS for step in range(3)], load)
            case 1:
                await numbers.get(key)
            case _:
                await numbers.get_or_set(key, lambda key=key: load_one(key), tags=tags)  # type: ignore[misc]  # -- a default binds the key
        reads += 1
        await asyncio.sleep(random.expovariate(1 / 0.002))  # leaves processor time to the writer
    return reads


async def reader(url: str, prefix: str, truth: Truth) -> None:
    """Read until told to stop, then print how many old values this process holds, and its hits and misses."""
    registry = CollectorRegistry()
    async with process(url, prefix, registry) as (manager, numbers):
        stopped = asyncio.Event()
        tasks = [asyncio.create_task(read(numbers, truth, stopped)) for _ in range(TASKS)]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                while not held(numbers):  # the last change or a gap may have cleared memory
                    await asyncio.sleep(0.01)
        stopped.set()
        reads = sum(await asyncio.gather(*tasks))
        print("stopped", flush=True)
        await receive_all(manager)
        values = held(numbers)
        stale = sum(value != truth[key] for key, value in values.items())
        lookups = {f"{tier} {result}": lookups_of(registry, tier, result) for tier in TIERS for result in RESULTS}
        print(json.dumps({"reads": reads, "held": len(values), "stale": stale, **lookups}), flush=True)


def held(numbers: Cache[int]) -> dict[int, int]:
    """Return the values in the memory of this process."""
    return {key: value for key in range(KEYS) if (value := numbers.peek(key)) is not MISSING}


def lookups_of(registry: CollectorRegistry, tier: str, result: str) -> int:
    """Return how many lookups in a tier had a result."""
    labels = {"cache": "numbers", "tier": tier, "result": result}
    return int(registry.get_sample_value("cache_requests_total", labels) or 0)


async def receive_all(manager: TieredCacheManager) -> None:
    """Return when all published messages have been received: the channel has answered a check that is sent from now on.

    The sequence numbers cannot show this, because the server may evict the current one.
    """
    now = time.monotonic()
    while manager.backplane.live_until < now + PING_AFTER + ANSWER_TIMEOUT:
        await asyncio.sleep(0.01)


async def writer(url: str, prefix: str, truth: Truth, invalidations: int, seconds: float) -> None:
    """Commit versions and invalidate them in all possible ways for at least so many seconds; a key has one writer."""
    async with process(url, prefix) as (_, numbers):
        locks = [asyncio.Lock() for _ in range(KEYS)]

        ends = time.monotonic() + seconds

        async def write(count: int) -> None:
            numbers_of_writes = itertools.count()
            while next(numbers_of_writes) < count or time.monotonic() < ends:
                key = random.randrange(KEYS)
                async with locks[key]:
                    version = truth.bump(key)
                    match random.randrange(20):
                        case 0:
                            await numbers.set(key, version, tags=[f"tag:{key % 5}"])
                        case 1:
                            await numbers.expire(key)
                        case 2 if random.random() < 0.1:
                            await numbers.clear()
                        case _:
                            await numbers.delete(key)

        await asyncio.gather(*(write(invalidations // TASKS) for _ in range(TASKS)))


def switch_guard_off() -> None:
    """Switch the invalidation guard off, as in the usual design: each loaded value is stored."""
    read_script = scripts.script
    unguarded = {"store": [("state == ARGV[at]", "true"), ("local fit =", "local fit = true or")]}

    def script(name: str) -> str:
        text = read_script(name)
        for old, new in unguarded.get(name, []):
            assert old in text
            text = text.replace(old, new)
        return text

    monkeypatch = pytest.MonkeyPatch()  # never undone, because the process ends
    for module in (scripts, link):
        monkeypatch.setattr(module, "script", script)
    monkeypatch.setattr(InvalidationGuards, "invalidate", lambda *_, **__: None)
    monkeypatch.setattr(InvalidationGuards, "invalidate_all", lambda *_: None)


async def lines(processes: Sequence[asyncio.subprocess.Process], expected: bytes) -> None:
    """Read one line of each process."""
    for each in processes:
        assert each.stdout is not None
        assert await each.stdout.readline() == expected


async def run(
    url: str, prefix: str, file: Path, *, invalidations: int, guarded: bool, seconds: float = 0
) -> tuple[int, int]:
    """Run all processes; return how many old values Redis holds, and how many the processes hold."""
    file.write_bytes(bytes(KEYS * _NUMBER.size))  # noqa: ASYNC240 -- once

    async def start(role: str) -> asyncio.subprocess.Process:
        arguments = (__file__, role, url, prefix, str(file), str(invalidations), str(int(guarded)), str(seconds))
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


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("invalidations", "seconds"),
    [(500, 0), pytest.param(500, 120, marks=[pytest.mark.prove, pytest.mark.timeout(900)])],
)
async def test_nothing_stale_is_left_when_memory_is_full(
    private_redis: ValkeyServer,
    redis_prefix: str,
    tmp_path: Path,
    policy: str,
    invalidations: int,
    seconds: float,
) -> None:
    """Whatever Redis evicts or refuses, tombstones and marks included, no load stores an old value."""
    async with pressed(private_redis, policy) as redis, evicted_keys(redis, redis_prefix) as evicted:
        found = await run(
            private_redis.url(),
            redis_prefix,
            tmp_path / "truth",
            invalidations=invalidations,
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


async def test_without_the_guard_stale_values_are_left(redis_url: str, redis_prefix: str, tmp_path: Path) -> None:
    """The same run without the guard leaves old values, so the test can fail."""
    for number in range(10):  # usually the first run
        prefix = f"{redis_prefix}-{number}"
        if sum(await run(redis_url, prefix, tmp_path / "truth", invalidations=500, guarded=False)):
            return
    pytest.fail("the usual design left nothing stale")


if __name__ == "__main__":
    ROLE, URL, PREFIX, FILE, INVALIDATIONS, FENCED, SECONDS = sys.argv[1:]
    if not int(FENCED):
        switch_guard_off()
    if ROLE == "reader":
        asyncio.run(reader(URL, PREFIX, Truth(Path(FILE))))
    else:
        asyncio.run(writer(URL, PREFIX, Truth(Path(FILE)), int(INVALIDATIONS), float(SECONDS)))

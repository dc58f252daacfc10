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
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from struct import Struct
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tequipy_caching import MISSING, Cache, CachePolicy
from tequipy_caching.cache.invalidation_guard import InvalidationGuards
from tequipy_caching.manager import TieredCacheManager
from tequipy_caching.redis import link, scripts
from tequipy_caching.redis.cancellation import cancel_and_wait
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer

KEYS = 50
READERS = 4
TASKS = 10
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
async def process(url: str, prefix: str) -> AsyncIterator[tuple[TieredCacheManager, Cache[int]]]:
    """Start the cache of one process."""
    policies = {"numbers": CachePolicy(ttl=600, hard_timeout=5)}
    settings = CacheSettings(url=SecretStr(url), prefix=prefix, policies=policies, l2_timeout=10)
    async with build_cache(settings) as manager:
        assert isinstance(manager, TieredCacheManager)
        while not manager.backplane.live:
            await asyncio.sleep(0.01)
        yield manager, manager.cache("numbers", int)


async def read(numbers: Cache[int], truth: Truth, stopped: asyncio.Event) -> int:
    """Read one or several keys, and load missing ones as slowly as a database."""
    reads = 0

    async def load(keys: Sequence[Any]) -> dict[Any, int]:
        found = {key: truth[key] for key in keys}
        await asyncio.sleep(random.expovariate(1 / 0.003))
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
    """Read until told to stop, then print how many old values this process holds."""
    async with process(url, prefix) as (manager, numbers):
        stopped = asyncio.Event()
        tasks = [asyncio.create_task(read(numbers, truth, stopped)) for _ in range(TASKS)]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        stopped.set()
        reads = sum(await asyncio.gather(*tasks))
        await receive_all(manager)
        held = {key: value for key in range(KEYS) if (value := numbers.peek(key)) is not MISSING}
        stale = sum(value != truth[key] for key, value in held.items())
        print(json.dumps({"reads": reads, "held": len(held), "stale": stale}), flush=True)


async def receive_all(manager: TieredCacheManager) -> None:
    """Return when all published messages have been received."""
    async with manager.link.connect(1) as client:
        while True:
            sequence = await client.hget(manager.link.state, "sequence")
            position = manager.link.position
            if position is not None and position.sequence == int(sequence or 0):
                return
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
        for each in readers:
            assert each.stdout is not None
            assert await each.stdout.readline() == b"ready\n"
        writing = await start("writer")
        assert await writing.wait() == 0
        answers = [json.loads((await each.communicate(b"stop\n"))[0]) for each in readers]
    finally:
        for each in readers:
            if each.returncode is None:
                each.kill()
    truth = Truth(file)
    async with process(url, prefix) as (_, numbers):
        shared = await numbers.get_many(range(KEYS))
    in_redis = sum(value != truth[key] for key, value in shared.items() if isinstance(key, int))
    in_memory = sum(answer["stale"] for answer in answers)
    held = sum(answer["held"] for answer in answers)
    reads = sum(answer["reads"] for answer in answers)
    print(
        f"\n{invalidations} invalidations, {reads} reads, {READERS} processes, {'guarded' if guarded else 'no guard'}: "
        f"stale are {in_redis} of {len(shared)} values in Redis and {in_memory} of {held} in memory"
    )
    assert shared or held
    return in_redis, in_memory


@pytest.mark.parametrize(
    "invalidations", [500, pytest.param(20_000, marks=[pytest.mark.prove, pytest.mark.timeout(600)])]
)
async def test_nothing_stale_is_left(redis_url: str, redis_prefix: str, tmp_path: Path, invalidations: int) -> None:
    """However loads and invalidations overlap, at the end neither Redis nor any L1 holds an old value."""
    assert await run(redis_url, redis_prefix, tmp_path / "truth", invalidations=invalidations, guarded=True) == (0, 0)


POLICIES = ("noeviction", "allkeys-lru", "allkeys-lfu", "volatile-ttl", "volatile-lru")


@contextlib.asynccontextmanager
async def pressed(server: ValkeyServer, policy: str) -> AsyncIterator[Redis]:
    """Fill a server's memory so that it evicts or refuses writes, and continue during the block."""
    filled = asyncio.Event()

    async def fill() -> None:
        number = 0
        while True:
            with contextlib.suppress(ResponseError):
                await redis.set(f"filler:{number % 20_000}", "x" * 400, px=random.choice([2_000, 600_000]))
            number += 1
            if number == 20_000:
                filled.set()
            if filled.is_set():
                await asyncio.sleep(0.001)

    async with Redis.from_url(server.url()) as redis:
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory-policy", policy)
        await redis.config_set("maxmemory", used + 4_000_000)
        filling = asyncio.create_task(fill())
        await filled.wait()
        yield redis
        await cancel_and_wait(filling)  # redis-py may swallow one cancellation


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
    async with pressed(private_redis, policy) as redis:
        before = await redis.info("stats")
        found = await run(
            private_redis.url(),
            redis_prefix,
            tmp_path / "truth",
            invalidations=invalidations,
            guarded=True,
            seconds=seconds,
        )
        after = await redis.info("stats")
        evictions = after["evicted_keys"] - before["evicted_keys"]
        refusals = (await redis.info("errorstats")).get("errorstat_OOM", {"count": 0})["count"]
    print(f"{policy}: {evictions} evictions, {refusals} refused for memory, stale {found}")
    assert found == (0, 0)
    assert refusals if policy == "noeviction" else evictions


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

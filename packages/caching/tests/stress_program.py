"""A process of the stress test: a reader, which loads and reads values, or a writer, which invalidates them."""

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
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tequipy_caching import MISSING, Cache, CachePolicy
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.cache.invalidation_guard import InvalidationGuards
from tequipy_caching.redis import link, scripts
from tequipy_caching.redis.backplane import ANSWER_TIMEOUT, PING_AFTER
from tequipy_caching.wiring import CacheSettings, build_cache

KEYS = 50
TASKS = 10
LOAD_SECONDS = (0.003, 0.003, 0.003, 0.3)
TIERS = ("l1", "l2")
RESULTS = ("hit", "miss")
NUMBER = Struct("q")
random = Random()  # noqa: S311 -- no secret


class Truth:
    """The database: the versions of all keys, in a file that all processes share."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), KEYS * NUMBER.size)

    def __getitem__(self, key: int) -> int:
        return int(NUMBER.unpack_from(self._map, key * NUMBER.size)[0])

    def bump(self, key: int) -> int:
        """Commit a new version."""
        NUMBER.pack_into(self._map, key * NUMBER.size, self[key] + 1)
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
    """Read until a line arrives on standard input; then print the number of old values, hits and misses."""
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


if __name__ == "__main__":
    ROLE, URL, PREFIX, FILE, INVALIDATIONS, GUARDED, SECONDS = sys.argv[1:]
    if not int(GUARDED):
        switch_guard_off()
    if ROLE == "reader":
        asyncio.run(reader(URL, PREFIX, Truth(Path(FILE))))
    else:
        asyncio.run(writer(URL, PREFIX, Truth(Path(FILE)), int(INVALIDATIONS), float(SECONDS)))

"""Measures the cost of a cache hit: tequipy-caching compared with cashews, aiocache, async-lru and the floor.

The floor is an `async def` over `TTLCache[key]` in `try`/`except`: no cache on an event loop can be cheaper. All are
measured in one process under uvloop, in turn. A ratio is the median of the rounds' ratios, so that other load of the
machine affects both sides alike. CPU time is measured where no call waits for Redis, elapsed time otherwise. The second
tier is a Valkey that this program starts.
"""

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiocache  # type: ignore[import-untyped]  # -- it ships no types
import cashews
import uvloop
from async_lru import alru_cache
from cachetools import TTLCache
from pydantic import SecretStr, TypeAdapter
from redis.asyncio import Redis
from report import print_table

from tequipy_caching import Cache, CachePolicy, Key
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import ValkeyServer

ROUNDS: Final = 31
KEYS: Final = 1000
BATCH: Final = 100
ENTRIES: Final = 10_000
TTL: Final = 300
POLICIES: Final = {
    "users": CachePolicy(ttl=TTL, l1_maxsize=2 * KEYS),
    "remote": CachePolicy(ttl=TTL, tiers="l2"),
    "brief": CachePolicy(ttl=2, l1_maxsize=ENTRIES, jitter=0, tiers="l1"),
}


@dataclass(frozen=True, slots=True)
class User:
    """A value of typical size."""

    id: int
    name: str
    mail: str
    roles: tuple[str, ...]


USERS: Final = {
    f"user:{number}": User(number, f"Ada {number}", f"ada{number}@example.com", ("user", "admin"))
    for number in range(KEYS)
}
NAMES: Final = list(USERS)

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Bar:
    """A measured ratio or time with its limit."""

    question: str
    measured: float
    bound: float
    least: bool = False
    unit: str = "times"

    def row(self) -> tuple[str, str, str, str]:
        """Return the bar as a row of the last table."""
        met = self.measured >= self.bound if self.least else self.measured <= self.bound
        bar = f"{'at least' if self.least else 'at most'} {self.bound:g} {self.unit}"
        return self.question, f"{self.measured:.2f}", bar, "met" if met else "missed"


async def in_turns(
    contenders: Mapping[str, Work], repeat: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Run each in turn, round by round; return the microseconds per operation (`repeat` of them per run)."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, work in contenders.items():
            started = clock()
            await work()
            if number:  # the first round is a warm-up
                taken[name].append((clock() - started) / repeat * 1e6)
    return taken


def ratio(taken: Mapping[str, list[float]], of: str, to: str) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(taken[of], taken[to], strict=True))


def each_of(get: Callable[[Any], Awaitable[object]], arguments: Sequence[Any]) -> Work:
    """Return a coroutine function that requests each argument once."""

    async def ask() -> None:
        for argument in arguments:
            await get(argument)

    return ask


def floor(keys: Sequence[Any]) -> Callable[[Any], Awaitable[User | None]]:
    """Return the cheapest possible cache on an event loop."""
    entries: TTLCache[Any, User] = TTLCache(2 * KEYS, TTL)
    entries.update(zip(keys, USERS.values(), strict=True))

    async def get(key: Any) -> User | None:  # noqa: ANN401 -- any key
        try:
            return entries[key]
        except KeyError:
            return None

    return get


async def hits(users: Cache[User]) -> list[Bar]:
    """Measure a hit in memory by key."""
    theirs = cashews.Cache()
    theirs.setup(f"mem://?size={2 * KEYS}")
    plain = aiocache.SimpleMemoryCache()
    for name, user in USERS.items():
        await users.set(name, user)
        await theirs.set(name, user, expire=TTL)
        await plain.set(name, user, ttl=TTL)
    contenders: dict[str, Callable[[Any], Awaitable[object]]] = {
        "floor": floor(NAMES),
        "tequipy": users.get,
        "cashews": theirs.get,
        "aiocache": plain.get,
    }
    taken = await in_turns({name: each_of(get, NAMES) for name, get in contenders.items()}, KEYS)
    await theirs.close()
    print_table("A hit in memory by `get`", ["", "µs", "times the floor"], _compared(taken))
    return [
        Bar("`get`, a hit: tequipy / floor", ratio(taken, "tequipy", "floor"), 1.3),
        Bar("`get`, a hit: cashews / tequipy", ratio(taken, "cashews", "tequipy"), 4, least=True),
    ]


async def decorated_hits(users: Cache[User]) -> list[Bar]:
    """Measure a hit in memory by a decorated function."""
    theirs = cashews.Cache()
    theirs.setup(f"mem://?size={2 * KEYS}")

    async def load(user_id: int) -> User:
        return USERS[f"user:{user_id}"]

    contenders: dict[str, Callable[[int], Awaitable[object]]] = {
        "floor": floor(range(KEYS)),
        "tequipy": users.cached("decorated:{user_id}")(load),
        "cashews": theirs(ttl=TTL, key="decorated:{user_id}")(load),
        "aiocache": aiocache.cached(ttl=TTL)(load),
        "async-lru": alru_cache(maxsize=2 * KEYS, ttl=TTL)(load),
    }
    taken = await in_turns({name: each_of(get, range(KEYS)) for name, get in contenders.items()}, KEYS)
    await theirs.close()
    print_table("A hit in memory by a decorated function", ["", "µs", "times the floor"], _compared(taken))
    return [
        Bar("decorated hit: tequipy / floor", ratio(taken, "tequipy", "floor"), 3),
        Bar("decorated hit: cashews / tequipy", ratio(taken, "cashews", "tequipy"), 10, least=True),
    ]


async def batches(remote: Cache[User], redis: Redis, url: str) -> list[Bar]:
    """Measure a batch that only Redis holds."""
    names, adapter, times = NAMES[:BATCH], TypeAdapter(User), 5
    theirs = cashews.Cache()
    theirs.setup(url)
    for name in names:
        await remote.set(name, USERS[name])
        await redis.set(f"raw:{name}", adapter.dump_json(USERS[name]))
        await theirs.set(name, USERS[name], expire=TTL)

    async def load(keys: Sequence[Key]) -> Mapping[Key, User]:
        raise LookupError(f"{len(keys)} are not there")

    async def ours(_: object) -> None:
        found = await remote.get_or_set_many(names, load)
        assert len(found) == BATCH  # noqa: S101 -- the measurement would be invalid

    async def raw(_: object) -> None:
        found = [adapter.validate_json(data) for data in await redis.mget([f"raw:{name}" for name in names]) if data]
        assert len(found) == BATCH  # noqa: S101 -- as above

    async def cashews_many(_: object) -> None:
        assert None not in await theirs.get_many(*names)  # noqa: S101 -- as above

    contenders: dict[str, Callable[[Any], Awaitable[object]]] = {
        "raw MGET and decoding": raw,
        "tequipy get_or_set_many": ours,
        "cashews get_many": cashews_many,
    }
    work = {name: each_of(get, range(times)) for name, get in contenders.items()}
    taken = await in_turns(work, times, time.perf_counter)
    await theirs.close()
    print_table(f"{BATCH} values from Redis", ["", "µs", "times the raw"], _compared(taken))
    worst = ratio(taken, "tequipy get_or_set_many", "raw MGET and decoding")
    return [Bar(f"`get_or_set_many` of {BATCH} from Redis: tequipy / raw", worst, 2.5)]


async def guarded_stores(remote: Cache[User], redis: Redis) -> list[Bar]:
    """Measure the cost of the invalidation guard, which stores a loaded value only if its key was not invalidated."""
    tier = remote._shared  # type: ignore[attr-defined]  # noqa: SLF001 -- no public method only stores a value
    names, user = NAMES[:200], USERS[NAMES[0]]
    encoded = {name: tier.encode(name, user, TTL, ()) for name in names}
    taken: dict[str, list[float]] = {"plain SET": [], "compare and set": []}
    missed: dict[str, list[float]] = {"without a mark": [], "with a mark": []}
    for number in range(ROUNDS + 1):
        await redis.flushdb()
        lookups = []
        for title, storing in (("without a mark", False), ("with a mark", True)):
            began = time.perf_counter()
            lookups = [await tier.read([name], (), storing=storing) for name in names]
            if number:
                missed[title].append((time.perf_counter() - began) / len(names) * 1e6)
        seen = {name: lookup[name].seen for name, lookup in zip(names, lookups, strict=True)}
        started = time.perf_counter()
        for name in names:
            async with asyncio.timeout(1):
                await redis.set(f"plain:{name}", encoded[name].envelope, px=encoded[name].milliseconds)
        between = time.perf_counter()
        for name in names:
            changed = await tier.store({name: (encoded[name], seen[name])})
            assert not changed  # noqa: S101 -- the measurement would be invalid
        if number:
            taken["plain SET"].append((between - started) / len(names) * 1e6)
            taken["compare and set"].append((time.perf_counter() - between) / len(names) * 1e6)
    print_table("A lookup in Redis that finds nothing", ["", "µs", "times without"], _compared(missed))
    print_table("A value stored in Redis", ["", "µs", "times the plain"], _compared(taken))
    return [Bar("store with invalidation guard / plain SET", ratio(taken, "compare and set", "plain SET"), 1.15)]


async def expiry(brief: Cache[User]) -> list[Bar]:
    """Measure how long the event loop is blocked when all entries in memory expire at once and the cache is used.

    The result is the longest block of all rounds. Python's garbage collector blocks the loop too, for a time that
    depends on all objects of the process. It is measured without the collector, which the limit concerns, and with it.
    """
    plain: TTLCache[Key, User] = TTLCache(ENTRIES, POLICIES["brief"].ttl)
    held = {"TTLCache itself, GC off": 0.0, "tequipy, GC off": 0.0, "tequipy, GC on": 0.0}
    for collector in ("off", "on"):
        for _ in range(5):
            for number in range(ENTRIES):
                await brief.set(number, USERS[NAMES[0]])
                plain[number] = USERS[NAMES[0]]
            await asyncio.sleep(POLICIES["brief"].ttl + 0.1)
            if collector == "off":
                gc.disable()
                started = time.process_time()
                plain[0] = USERS[NAMES[0]]
                first = "TTLCache itself, GC off"
                held[first] = max(held[first], (time.process_time() - started) * 1000)
            name = f"tequipy, GC {collector}"
            held[name] = max(held[name], await _longest_hold(brief))
            gc.enable()
    print_table(f"{ENTRIES:,} entries expire at once: longest block of the event loop", ["", "ms"], list(held.items()))
    question = f"{ENTRIES:,} expire at once, longest block"
    return [
        Bar(f"{question}, GC off", held["tequipy, GC off"], 5, unit="ms"),
        Bar(f"{question}, GC on", held["tequipy, GC on"], 5, unit="ms"),
    ]


async def _longest_hold(brief: Cache[User]) -> float:
    """Use a cache whose entries have expired; return the milliseconds of the longest step."""
    longest = 0.0
    for number in range(2000):
        started = time.process_time()
        await brief.set(number, USERS[NAMES[0]])
        await brief.get(number + 1)
        longest = max(longest, time.process_time() - started)
        await asyncio.sleep(0)
    return longest * 1000


def _compared(taken: Mapping[str, list[float]]) -> list[tuple[str, float, float]]:
    first = next(iter(taken))
    return [(name, statistics.median(times), ratio(taken, name, first)) for name, times in taken.items()]


async def measure(url: str) -> None:
    """Measure everything and print the tables."""
    settings = CacheSettings(url=SecretStr(url), policies=POLICIES, l2_timeout=5)
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(build_cache(settings))
        redis = await stack.enter_async_context(Redis.from_url(url))
        async with asyncio.timeout(30):
            while manager.health().backplane != "live":  # noqa: ASYNC110 -- there is no event to wait for
                await asyncio.sleep(0.01)
        users, remote, brief = (manager.cache(name, User) for name in ("users", "remote", "brief"))
        bars = [*await hits(users), *await decorated_hits(users), *await batches(remote, redis, url)]
        bars += [*await guarded_stores(remote, redis), *await expiry(brief)]
    print_table("The bars", ["", "measured", "bar", ""], [bar.row() for bar in bars])


def main() -> None:
    """Run the comparison beside a Valkey of its own."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(Path(folder)) as valkey:
        uvloop.run(measure(valkey.url()))


if __name__ == "__main__":
    main()

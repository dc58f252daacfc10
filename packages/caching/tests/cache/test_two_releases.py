"""Two releases with different schemas run side by side: each finds its own values, and both see every change."""

import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from redis.asyncio import Redis

from tequipy_caching import Cache


class Old(BaseModel, frozen=True):
    """The schema of the previous release."""

    version: int


class New(BaseModel, frozen=True):
    """The schema of the next release."""

    version: int
    nickname: str = ""


class Releases(NamedTuple):
    """A cache in both releases."""

    name: str
    old: Cache[Old]
    new: Cache[New]


@pytest.fixture(params=["remote", "words"])
async def releases(request: pytest.FixtureRequest, start: Any, redis_url: str) -> Releases:
    one, other = await start(redis_url), await start(redis_url)
    return Releases(request.param, one.cache(request.param, Old), other.cache(request.param, New))


class Table:
    """The database from which both load."""

    def __init__(self) -> None:
        self.version = 1
        self.loads = 0

    async def old(self) -> Old:
        self.loads += 1
        return Old(version=self.version)

    async def new(self) -> New:
        self.loads += 1
        return New(version=self.version)


async def test_each_release_loads_once(releases: Releases) -> None:
    """Of 100 alternating reads of each release, two load; before, each overwrote the other's value."""
    table = Table()
    for _ in range(100):
        assert await releases.old.get_or_set("ada", table.old, tags=["team"]) == Old(version=1)
        assert await releases.new.get_or_set("ada", table.new, tags=["group"]) == New(version=1)
    print(f"{table.loads} loads of 200 reads")
    assert table.loads == 2
    assert await releases.new.get("ada") == New(version=1)


CHANGES: dict[str, Callable[[Cache[Any]], Awaitable[object]]] = {
    "delete": lambda cache: cache.delete("ada"),
    "expire": lambda cache: cache.expire("ada"),
    "tag": lambda cache: cache.delete_by_tag("team"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("changer", ["old", "new"])
@pytest.mark.parametrize("first", ["old", "new"])
async def test_a_change_reaches_both_releases(
    start: Any, releases: Releases, redis_url: str, change: str, changer: str, first: str
) -> None:
    """After a change by either release, neither finds its old value, whichever stored first."""
    table = Table()
    for release in (first, "new" if first == "old" else "old"):
        await getattr(releases, release).get_or_set("ada", getattr(table, release), tags=["team"])
    table.version = 2
    await CHANGES[change](getattr(releases, changer))
    third = await start(redis_url)
    assert await third.cache(releases.name, New).get("ada") is None
    fourth = await start(redis_url)
    assert await fourth.cache(releases.name, Old).get("ada") is None


async def test_a_batch_finds_the_values_of_both_releases(releases: Releases) -> None:
    """In a batch, each release finds its values in main and side keys, with one more round trip."""
    loads = 0

    async def old(keys: Any) -> dict[Any, Old]:
        nonlocal loads
        loads += len(keys)
        return {key: Old(version=key) for key in keys}

    async def new(keys: Any) -> dict[Any, New]:
        nonlocal loads
        loads += len(keys)
        return {key: New(version=key) for key in keys}

    for _ in range(3):
        assert await releases.old.get_or_set_many(range(10), old) == {key: Old(version=key) for key in range(10)}
        assert await releases.new.get_or_set_many(range(20), new) == {key: New(version=key) for key in range(20)}
    assert loads == 30


async def test_each_release_reads_the_last_version(start: Any, redis_url: str) -> None:
    """In any order of loads, sets and changes by two releases, without L1, each read returns the last version."""
    one, other = await start(redis_url), await start(redis_url)
    releases = Releases("remote", one.cache("remote", Old), other.cache("remote", New))
    dice = random.Random(random.random())  # noqa: S311 -- no secret; repeats with pytest-randomly's seed
    table = Table()
    types: dict[str, Any] = {"old": Old, "new": New}
    for _ in range(500):
        release = dice.choice(["old", "new"])
        cache = getattr(releases, release)
        match dice.randrange(10):
            case 0:
                table.version += 1
                await cache.set("ada", types[release](version=table.version), tags=["team"])
            case 1:
                table.version += 1
                await CHANGES[dice.choice(["delete", "expire", "clear"])](cache)
            case _:
                loaded = await cache.get_or_set("ada", getattr(table, release), tags=["team"])
                assert loaded == types[release](version=table.version)


async def test_a_value_of_another_schema_counts_as_unreadable(start: Any, redis_url: str) -> None:
    """A value of another schema without a valid side value is a miss and is counted; so is a damaged side value."""
    registry = CollectorRegistry()
    one, other = await start(redis_url), await start(redis_url, registry=registry)
    await one.cache("remote", Old).set("ada", Old(version=1))
    theirs = other.cache("remote", New)
    assert await theirs.get("ada") is None
    unreadable = {"cache": "remote", "tier": "l2", "result": "unreadable"}
    assert registry.get_sample_value("cache_requests_total", unreadable) == 1
    await theirs.get_or_set("ada", Table().new)
    async with Redis.from_url(redis_url) as redis:
        (in_side_key,) = [name async for name in redis.scan_iter(f"{one.link.prefix}:cache:remote:~*")]
        await redis.setrange(in_side_key, await redis.strlen(in_side_key) - 1, b"!")
    assert await theirs.get("ada") is None
    assert registry.get_sample_value("cache_requests_total", unreadable) == 3

"""A server that is restarted from an older snapshot: no connection returns a value that was deleted since."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tequipy_devstack.servers import ValkeyServer

KEYS = 50
READERS = 20


@pytest.fixture
def older(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Return a second server that starts on a copy of the first one's data."""
    server = ValkeyServer(tmp_path / "older")
    yield server
    server.stop()


@pytest.mark.parametrize("denied", [(), ("-info",)], ids=["INFO", "no INFO"])
async def test_new_connections_return_no_deleted_value(
    start: Any, private_redis: ValkeyServer, proxy: Any, older: ValkeyServer, eventually: Any, denied: tuple[str, ...]
) -> None:
    """Readers of a server that is killed and replaced by an older one, without a pause, get no deleted value.

    The readers are idle at the moment of the kill, so that no request fails and every reader uses a new connection.
    """
    await allow(private_redis, denied)
    url = f"redis://tequipy:secret@127.0.0.1:{proxy.port}/0"
    writer, *others = [await start(url, l2_timeout=2) for _ in range(3)]
    for name in ("remote", "words"):
        await asyncio.gather(*(writer.cache(name, str).set(key, "old") for key in range(KEYS)))
    older.folder.mkdir()
    shutil.copytree(private_redis.data, older.data)
    for name in ("remote", "words"):
        await writer.cache(name, str).delete(*range(KEYS))
        for key in range(5):  # more messages, so that the sequence numbers differ by more than the deletes
            await writer.cache(name, str).set(f"new {key}", "new")
    await eventually(lambda: len({each.link.position for each in (writer, *others)}) == 1)
    await asyncio.to_thread(older.start)
    await allow(older, denied)
    stale = reads = waiting = 0
    stopped, going = asyncio.Event(), asyncio.Event()
    going.set()

    async def read(cache: Any, key: int) -> None:
        nonlocal stale, reads, waiting
        while not stopped.is_set():
            value = await cache.get(key % KEYS)
            stale += value == "old"
            reads += 1
            key += 1
            await asyncio.sleep(0)  # hits do not yield to other tasks
            waiting += 1
            await going.wait()
            waiting -= 1

    caches = [each.cache(name, str) for each in (writer, *others) for name in ("remote", "words")]
    readers = [asyncio.create_task(read(cache, number)) for cache in caches for number in range(READERS)]
    await eventually(lambda: reads > 1000)
    going.clear()
    await eventually(lambda: waiting == len(readers))
    proxy.switch(older.port)
    killing = asyncio.create_task(asyncio.to_thread(private_redis.kill))
    await eventually(lambda: not any(each.backplane.live for each in (writer, *others)))
    before = reads
    going.set()
    await eventually(lambda: all(each.backplane.live and not each.link.breaker.open for each in (writer, *others)))
    await eventually(lambda: reads > before + 1000)
    stopped.set()
    await killing
    await asyncio.gather(*readers)
    print(f"{stale} old of {reads - before} reads since the server was killed")
    assert stale == 0
    fourth = await start(url, l2_timeout=2)
    assert await fourth.cache("remote", str).get_many(range(KEYS)) == {}


async def allow(server: ValkeyServer, denied: tuple[str, ...]) -> None:
    """Create the user of the test."""
    async with Redis.from_url(server.url()) as redis:
        await cast("Any", redis).execute_command(
            "ACL", "SETUSER", "tequipy", "on", ">secret", "~*", "&*", "+@all", *denied
        )

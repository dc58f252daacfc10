"""A server is replaced by one with older data: no connection returns a value that was deleted since.

It is restarted from an older snapshot, or a replica that lags is promoted.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tequipy_devstack.servers import ValkeyServer

from ..server_commands import command, is_synchronized

KEYS = 50
READERS = 20
CACHES = ("remote", "words")
RIGHTS = pytest.mark.parametrize("denied", [(), ("-info",)], ids=["INFO", "no INFO"])


async def allow(server: ValkeyServer, denied: tuple[str, ...]) -> None:
    """Create the user of the test."""
    await command(server, "ACL", "SETUSER", "tequipy", "on", ">secret", "~*", "&*", "+@all", *denied)


def url_of(port: int) -> str:
    return f"redis://tequipy:secret@127.0.0.1:{port}/0"


@pytest.fixture
def older(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Return a second server that starts on a copy of the first one's data."""
    server = ValkeyServer(tmp_path / "older")
    yield server
    server.stop()


@pytest.fixture
async def replication(private_redis: ValkeyServer, proxy: Any) -> AsyncIterator[Any]:
    """Yield a proxy between the private server and a replica, which can cut the replication."""
    replication = type(proxy)(private_redis.port)
    await replication.open()
    yield replication
    await replication.refuse()


@pytest.fixture
async def replica(
    private_redis: ValkeyServer, replication: Any, tmp_path: Path, eventually: Any
) -> AsyncIterator[ValkeyServer]:
    """Yield a replica of the private server that has all its data."""
    await command(private_redis, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
    with ValkeyServer(tmp_path / "replica") as server:
        await command(server, "CONFIG", "SET", "primaryauth", private_redis.password)
        await command(server, "REPLICAOF", "127.0.0.1", replication.port)
        await eventually(lambda: is_synchronized(server))
        yield server


async def store(manager: Any) -> None:
    """Store the values that are deleted later."""
    for name in CACHES:
        await asyncio.gather(*(manager.cache(name, str).set(key, "old") for key in range(KEYS)))


async def delete(server: ValkeyServer, manager: Any, managers: Sequence[Any], eventually: Any) -> None:
    """Delete all values, and wait until every process has received this."""
    for name in CACHES:
        await manager.cache(name, str).delete(*range(KEYS))
        for key in range(5):  # more messages, so that the sequence numbers differ by more than the deletes
            await manager.cache(name, str).set(f"new {key}", "new")
    await eventually(lambda: len(manager.link.recovery) == 0)  # on a busy machine a request may time out
    published = int(await command(server, "HGET", manager.link.state, "sequence"))
    await eventually(lambda: all(each.link.position.sequence >= published for each in managers))


async def count_old_reads(managers: Sequence[Any], replace: Callable[[], Awaitable[None]], eventually: Any) -> int:
    """Read in all processes while `replace` replaces the server; return how many reads returned a deleted value.

    The readers are idle when it begins, so that no request fails and every reader uses a new connection.
    """
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

    caches = [each.cache(name, str) for each in managers for name in CACHES]
    readers = [asyncio.create_task(read(cache, number)) for cache in caches for number in range(READERS)]
    await eventually(lambda: reads > 1000)
    going.clear()
    await eventually(lambda: waiting == len(readers))
    replacing = asyncio.create_task(cast("Any", replace()))
    await eventually(lambda: not any(each.backplane.live for each in managers))
    before = reads
    going.set()
    await replacing
    await eventually(lambda: all(each.backplane.live and not each.link.breaker.open for each in managers))
    after = reads
    await eventually(lambda: reads > after + 1000)
    stopped.set()
    await asyncio.gather(*readers)
    print(f"{stale} old of {reads - before} reads since the server was killed")
    return stale


@RIGHTS
async def test_new_connections_return_no_deleted_value(
    start: Any, private_redis: ValkeyServer, proxy: Any, older: ValkeyServer, eventually: Any, denied: tuple[str, ...]
) -> None:
    """Readers of a server that is killed and replaced by an older one, without a pause, get no deleted value."""
    await allow(private_redis, denied)
    writer, *_ = managers = [await start(url_of(proxy.port), l2_timeout=2) for _ in range(3)]
    await store(writer)
    older.folder.mkdir()
    shutil.copytree(private_redis.data, older.data)
    await delete(private_redis, writer, managers, eventually)
    await asyncio.to_thread(older.start)
    await allow(older, denied)

    async def replace() -> None:
        proxy.switch(older.port)
        await asyncio.to_thread(private_redis.kill)

    assert await count_old_reads(managers, replace, eventually) == 0
    fourth = await start(url_of(proxy.port), l2_timeout=2)
    assert await fourth.cache("remote", str).get_many(range(KEYS)) == {}


@RIGHTS
@pytest.mark.parametrize("promoted", ["before it is reached", "afterwards"])
async def test_a_promoted_replica_returns_no_value_whose_deletion_it_lacks(
    start: Any,
    private_redis: ValkeyServer,
    proxy: Any,
    replication: Any,
    replica: ValkeyServer,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    denied: tuple[str, ...],
    promoted: str,
) -> None:
    """Readers get no deleted value from a replica that lags, neither before nor after it becomes the primary."""
    monkeypatch.setattr("tequipy_caching.cache.recovery.TRUST_AFTER", 1)
    for server in (private_redis, replica):
        await allow(server, denied)
    writer, *_ = managers = [await start(url_of(proxy.port), l2_timeout=2) for _ in range(3)]
    await store(writer)

    async def has_caught_up() -> bool:
        offsets = [(await command(each, "INFO"))["master_repl_offset"] for each in (private_redis, replica)]
        return bool(offsets[0] == offsets[1])

    await eventually(has_caught_up)
    replication.cut()
    await delete(private_redis, writer, managers, eventually)
    assert int(await command(replica, "HGET", writer.link.state, "sequence")) < writer.link.position.sequence
    promote = partial(command, replica, "REPLICAOF", "NO", "ONE")

    async def replace() -> None:
        proxy.switch(replica.port)
        if promoted == "before it is reached":
            await promote()
        await asyncio.to_thread(private_redis.kill)
        if promoted == "afterwards":
            await eventually(lambda: all(each.link.recovery.distrusts_all and each.backplane.live for each in managers))
            await promote()

    assert await count_old_reads(managers, replace, eventually) == 0
    await eventually(lambda: not any(each.link.recovery.distrusts_all for each in managers))
    fourth = await start(url_of(proxy.port), l2_timeout=2)
    for manager in (*managers, fourth):
        for name in CACHES:
            assert await manager.cache(name, str).get_many(range(KEYS)) == {}

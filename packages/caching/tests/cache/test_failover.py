"""A failover: another server becomes the primary and gets the host name."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tequipy_caching import MISSING, CacheHealth, RatePolicy
from tequipy_devstack.servers import ValkeyServer

from ..server_commands import command, is_synchronized


@pytest.fixture
async def replica(private_redis: ValkeyServer, tmp_path: Path, eventually: Any) -> AsyncIterator[ValkeyServer]:
    """Yield a replica of the private server, with its data and password."""
    await command(private_redis, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
    with ValkeyServer(tmp_path) as server:
        await command(server, "CONFIG", "SET", "primaryauth", private_redis.password)
        await command(server, "ACL", "SETUSER", "default", f">{private_redis.password}")  # in addition to its own
        await command(server, "REPLICAOF", "127.0.0.1", private_redis.port)
        await eventually(lambda: is_synchronized(server))
        yield server


async def fail_over(primary: ValkeyServer, replica: ValkeyServer, proxy: Any, eventually: Any) -> None:
    """Promote the replica when it has all data; the old primary runs on, and refuses writes."""

    async def has_all() -> bool:
        sent = (await command(primary, "INFO"))["master_repl_offset"]
        return bool((await command(replica, "INFO"))["slave_repl_offset"] >= sent)

    await eventually(has_all)
    await command(replica, "REPLICAOF", "NO", "ONE")
    await command(primary, "REPLICAOF", "127.0.0.1", 1)
    proxy.switch(replica.port)


async def test_pending_deletes_reach_the_new_primary(
    start: Any, private_redis: ValkeyServer, replica: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """After READONLY, a process reconnects: its pending deletes arrive, and it receives messages of the new primary."""
    manager = await start(proxy_url)
    words = manager.cache("words", str)
    await words.set("deleted", "old")
    await asyncio.gather(*(words.get(number) for number in range(20)))  # opens connections, most of which stay idle
    await fail_over(private_redis, replica, proxy, eventually)
    other = await start(replica.url())
    others = other.cache("words", str)
    await words.delete("deleted")
    await words.set("held", "old")
    await eventually(lambda: manager.health() == CacheHealth("up", "live", 0))
    assert await others.get("deleted") is None
    await words.set("held", "old")
    assert await others.get("held") == "old"
    await others.delete("held")
    await eventually(lambda: words.peek("held") is MISSING)


async def test_limits_are_counted_on_the_new_primary(
    limiters: Any, private_redis: ValkeyServer, replica: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """A few decisions are made without Redis, then all processes count together on the new primary."""
    policy, limiter = RatePolicy("slow", 100, 3600), await limiters(proxy_url)
    await limiter.hit(policy, "ada")
    await fail_over(private_redis, replica, proxy, eventually)
    assert (await limiter.hit(policy, "ada")).degraded
    decision = await limiter.hit(policy, "ada")
    assert (decision.degraded, decision.remaining) == (False, 98)
    assert (await (await limiters(replica.url())).hit(policy, "ada")).remaining == 97

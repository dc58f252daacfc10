"""Servers on which the cache can never work, because of missing permissions or Redis Cluster, are reported."""

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching import CachePolicy, CacheUnavailable, RatePolicy
from tequipy_caching.redis.backplane import Backplane
from tequipy_caching.redis.link import RedisLink
from tequipy_devstack.ports import free_port
from tequipy_devstack.servers import ValkeyServer

from ..server_commands import command
from .rights import give, refused_lines, stays

README = Path(__file__).parents[2] / "README.md"
ALL = ("~*", "&*", "+@all", "-@dangerous")


LACKING = ("-subscribe", "-publish", "resetchannels", "-@scripting", "-evalsha", "-eval")


async def test_each_missing_permission_is_reported_at_the_start(
    start: Any, private_redis: ValkeyServer, configured: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a permission that channel or scripts need, `health()` is `refusing` with the server's error text."""
    # EVAL is needed only while the server does not know the scripts, so no other user may send them there.
    servers = {right: configured() if right == "-eval" else private_redis for right in LACKING}

    async def lacks(right: str) -> None:
        server, user = servers[right], f"user{right}"
        manager = await start(await give(server, *ALL, right, user=user), live=False, l2_timeout=1)
        await eventually(lambda: manager.health().l2 == "refusing")
        assert (manager.health().reason or "").startswith("NOPERM "), right
        await stays(manager, eventually)
        await give(server, *ALL, user=user)
        await eventually(lambda: manager.health().l2 == "up" and manager.backplane.live)

    await asyncio.gather(*map(lacks, LACKING))
    lines = refused_lines(caplog)
    assert len(lines) == len(LACKING)
    assert all("permission" in line for line in lines)


async def test_the_channel_that_may_not_be_used_is_named(
    start: Any, private_redis: ValkeyServer, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the channel, because an operator has to permit that of the database's number."""
    url = (await give(private_redis, *ALL, "resetchannels", "&*:0")).removesuffix("0") + "2"
    manager = await start(url, live=False, l2_timeout=1)
    await eventually(lambda: bool(refused_lines(caplog)))
    assert refused_lines(caplog)[0].endswith(f" ({manager.link.channel})")
    assert manager.link.channel.endswith(":2")


async def cluster_info(node: ValkeyServer) -> bytes:
    """Return the CLUSTER INFO of a node."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(f"AUTH {node.password}\r\nCLUSTER INFO\r\n".encode())
    try:
        return await reader.readuntil(b"cluster_known_nodes")
    finally:
        writer.close()


@pytest.mark.parametrize("all_slots", [True, False])
async def test_a_node_of_a_cluster_is_reported(
    start: Any, configured: Any, eventually: Any, caplog: pytest.LogCaptureFixture, *, all_slots: bool
) -> None:
    """A node of a Redis Cluster is `refusing` with the server's error text, whatever its slots; one line is logged."""
    node = configured("cluster-enabled yes", f"cluster-port {free_port()}")
    if all_slots:
        await command(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def is_up() -> bool:
            return b"cluster_state:ok" in await cluster_info(node)

        await eventually(is_up)
    manager = await start(node.url(), live=False, l2_timeout=1)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert (manager.health().reason or "").split()[0] == ("CROSSSLOT" if all_slots else "CLUSTERDOWN")
    await stays(manager, eventually)
    await manager.cache("words", str).clear()
    assert len(refused_lines(caplog)) == 1


async def test_a_server_that_does_not_deliver_is_reported(
    start: Any, private_redis: ValkeyServer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts messages but does not deliver them is `refusing`."""
    monkeypatch.setattr("tequipy_caching.redis.backplane.Backplane._handle", lambda *_: None)
    manager = await start(private_redis.url(), live=False)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert (manager.health().reason or "").startswith("UNDELIVERED ")


async def test_a_server_without_scripts_is_reported(start: Any, configured: Any, eventually: Any) -> None:
    """A server without commands for scripts is `refusing`; the reason has no arguments, because they contain keys."""
    server = configured('rename-command EVALSHA ""')
    manager = await start(server.url(), live=False)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert manager.health().reason == "ERR unknown command 'EVALSHA'"


async def test_it_works_without_info(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """Without permission for INFO, the channel is live and carries deletes."""
    url = await give(private_redis, *ALL)
    one, other = [await start(url) for _ in range(2)]
    await one.cache("words", str).set("ada", "old")
    assert await other.cache("words", str).get("ada") == "old"
    await one.cache("words", str).delete("ada")
    await eventually(lambda: not other.cache("words", str).peek("ada"))
    assert (one.health().l2, one.health().backplane, one.health().reason) == ("up", "live", None)


async def test_an_older_snapshot_is_detected_without_info(
    start: Any, private_redis: ValkeyServer, eventually: Any
) -> None:
    """A server that is restarted from an older snapshot begins a new epoch, so that no deleted value is served."""
    url = await give(private_redis, *ALL)
    one = await start(url, l2_timeout=1)
    words = one.cache("words", str)
    await words.set("ada", "old")
    await words.set("bob", "old")
    older = private_redis.folder / "older"
    shutil.copytree(private_redis.data, older)
    await words.delete("ada")
    assert words.peek("bob") == "old"
    private_redis.kill()
    await eventually(lambda: one.health().backplane == "deaf")
    shutil.rmtree(private_redis.data)
    older.rename(private_redis.data)
    private_redis.restart()
    await give(private_redis, *ALL)
    await eventually(lambda: one.health().backplane == "live" and one.health().l2 == "up")
    assert not words.peek("bob")
    other = await start(url)
    assert await words.get("ada") is None
    assert await other.cache("words", str).get("ada") is None


@pytest.mark.parametrize("right", ["resetchannels", "-@scripting"])
async def test_nothing_is_served_stale_after_a_delete_that_was_not_received(
    start: Any, private_redis: ValkeyServer, right: str, factory: Any, policies: dict[str, CachePolicy]
) -> None:
    """A process without a channel serves its values neither fresh nor stale, because they may have been deleted."""
    policies["lasting"] = CachePolicy(ttl=0.05, jitter=0, fail_safe=600)
    one = await start(private_redis.url())
    disconnected = await start(await give(private_redis, *ALL, right), live=False, l2_timeout=1)
    words, lasting = disconnected.cache("words", str), disconnected.cache("lasting", str)

    async def fails() -> str:
        raise LookupError("the database is away")

    for cache in (words, lasting):
        assert await cache.get_or_set("ada", factory("old")) == "old"
    for name in ("words", "lasting"):
        await one.cache(name, str).delete("ada")
    tombstones = await command(private_redis, "KEYS", f"{one.link.prefix}:cache:*")
    assert len(tombstones) == 2
    await command(private_redis, "DEL", *tombstones)  # the values have expired
    assert await words.get("ada") is None
    assert await words.get_or_set("ada", factory("new")) == "new"
    stale = None
    with suppress(LookupError):
        stale = await lasting.get_or_set("ada", fails)
    assert stale is None


def least(name: str, prefix: str) -> list[str]:
    """Return the permissions that the README gives a user, for another prefix."""
    (rights,) = re.findall(rf"^ACL SETUSER {name} on >\S+ (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"(?<=[~&])tequipy", prefix, right) for right in rights.split()]


async def ada() -> str:
    return "Ada"


async def joined_or_refused(link: RedisLink, backplane: Backplane) -> None:
    """Return when a process has joined the channel or was refused."""
    async with asyncio.timeout(20):
        while not backplane.live and link.writes.refusal is None:
            await asyncio.sleep(0.002)
    with suppress(CacheUnavailable):
        await link.ping()


async def use_cache(start: Any, url: str) -> None:
    manager = await start(url, live=False, l2_timeout=2)
    await joined_or_refused(manager.link, manager.backplane)
    words, lasting = manager.cache("words", str), manager.cache("lasting", str)
    await words.set("ada", "Ada", tags=["team"])
    await words.get_or_set("bob", ada, tags=["team"])
    await words.get_many(["ada", "bob", "eve"])
    await words.delete("ada")
    await lasting.get_or_set("ada", ada)
    await lasting.expire("ada")
    await lasting.get_or_set("ada", ada)
    await words.delete_by_tag("team")
    await words.clear()


async def use_sets(start: Any, url: str) -> None:
    manager = await start(url, live=False)
    members = manager.expiring_set("revoked")
    await joined_or_refused(manager.link, manager.backplane)
    await members.add("ada", ttl=60)
    with suppress(CacheUnavailable):
        await manager.link.run("set_contains", [members.key], ["bob"])
    with suppress(CacheUnavailable):
        await manager.link.run("set_members", [members.key])


async def use_limiter(limiters: Any, url: str) -> None:
    limiter = await limiters(url, live=False)
    await joined_or_refused(limiter.link, limiter.backplane)
    policy = RatePolicy("login", 5, 60, lease=2)
    for _ in range(7):
        await limiter.hit(policy, "ada")
    await limiter.peek(policy, "ada")
    await limiter.reset(policy, "ada")


USES: dict[str, Callable[[Any, str], Awaitable[None]]] = {"cache": use_cache, "sets": use_sets, "limiter": use_limiter}


async def denied(server: ValkeyServer) -> set[str]:
    """Return the denied commands since the last call, except INFO."""
    async with Redis.from_url(server.url(), decode_responses=True) as redis:
        entries = await redis.acl_log()
        await redis.acl_log_reset()
    return {str(entry["object"]) for entry in entries} - {"info"}


@pytest.mark.parametrize("name", USES)
async def test_the_documented_permissions_suffice_in_another_database(
    start: Any,
    limiters: Any,
    private_redis: ValkeyServer,
    name: str,
    policies: dict[str, CachePolicy],
    redis_prefix: str,
) -> None:
    """With `+select` and the channel of that database, as the README says, nothing is denied in database 2."""
    policies["lasting"] = CachePolicy(ttl=1, fail_safe=1, lock="cluster", hard_timeout=1)
    rights = [re.sub(r"^(&.*):0$", r"\1:2", right) for right in least(name, redis_prefix)]
    url = (await give(private_redis, *rights, "+select")).removesuffix("0") + "2"
    await USES[name](limiters if name == "limiter" else start, url)
    assert await denied(private_redis) == set()


@pytest.mark.parametrize("name", USES)
async def test_the_documented_permissions_suffice_and_each_is_needed(
    start: Any,
    limiters: Any,
    private_redis: ValkeyServer,
    name: str,
    policies: dict[str, CachePolicy],
    redis_prefix: str,
) -> None:
    """With the permissions of the README only INFO is denied; without any one of them, something else is."""
    # Without a right that the lock needs, a load waits for `hard_timeout` + `l2_timeout`.
    policies["lasting"] = CachePolicy(ttl=1, fail_safe=1, lock="cluster", hard_timeout=1)
    rights, starting = least(name, redis_prefix), limiters if name == "limiter" else start
    await USES[name](starting, await give(private_redis, *rights))
    assert await denied(private_redis) == set()
    superfluous = []
    for number, right in enumerate(rights):
        await command(private_redis, "FLUSHALL")
        await command(private_redis, "SCRIPT", "FLUSH")
        others = [each for each in rights if each != right]
        await USES[name](starting, await give(private_redis, *others, user=f"user-{number}"))
        if not await denied(private_redis):
            superfluous.append(right)
    assert superfluous == []

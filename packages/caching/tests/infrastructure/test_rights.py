"""What can never work, for the rights of a user or because the server is a node of a Redis Cluster, is named."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tequipy_caching import CachePolicy, CacheUnavailable, RatePolicy
from tequipy_caching.infrastructure.backplane import Backplane
from tequipy_caching.infrastructure.manager import TieredCacheManager
from tequipy_caching.infrastructure.redis import RedisLink
from tequipy_devstack.ports import free_port
from tequipy_devstack.servers import ValkeyServer

README = Path(__file__).parents[2] / "README.md"
USER = "tequipy"
ALL = ("~*", "&*", "+@all", "-@dangerous")


class ConfiguredServer(ValkeyServer):
    """A server with lines of configuration that cannot be set once it runs."""

    lines: tuple[str, ...] = ()

    def _command(self) -> list[str]:
        command = super()._command()
        with self._configuration.open("a") as configuration:
            configuration.write("".join(f"{line}\n" for line in self.lines))
        return command


@pytest.fixture
def configured() -> Iterator[Callable[..., ConfiguredServer]]:
    """Yield what starts a server with such lines."""
    with ExitStack() as stack:

        def configured(*lines: str) -> ConfiguredServer:
            server = ConfiguredServer(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tequipy-valkey-"))))
            server.lines = lines
            return stack.enter_context(server)

        yield configured


async def command(server: ValkeyServer, *words: Any) -> Any:
    """Have a server do something, as the user that may do everything."""
    async with Redis.from_url(server.url()) as redis:
        return await cast("Any", redis).execute_command(*words)


async def give(server: ValkeyServer, *rights: str, user: str = USER) -> str:
    """Give a user these rights and no others; return the address at which it is that user."""
    await command(server, "ACL", "SETUSER", user, "reset", "on", "nopass", *rights)
    return f"redis://{user}@127.0.0.1:{server.port}/0"


def refused_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [cast("Any", each).error for each in caplog.records if each.message == "cache_writes_refused"]


async def stays(manager: TieredCacheManager, eventually: Any) -> None:
    """Return when it has looked unhealthy for longer than probes and attempts to join take, whatever is asked."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 2.5

    async def over() -> bool:
        await manager.ping()
        await manager.cache("words", str).set("ada", "Ada")
        assert (manager.health().l2, manager.health().backplane) == ("refusing", "deaf")
        return loop.time() > ends

    await eventually(over)


LACKING = {
    "SUBSCRIBE": "-subscribe",
    "PUBLISH": "-publish",
    "the channel": "resetchannels",
    "scripts": "-@scripting",
    "EVALSHA": "-evalsha",
    "EVAL": "-eval",
}


@pytest.mark.parametrize("right", LACKING.values(), ids=LACKING)
async def test_a_missing_right_is_named_at_the_start(
    start: Any, private_redis: ValkeyServer, right: str, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a right that channel or scripts need, health is `refusing` with the server's words until it is given."""
    url = await give(private_redis, *ALL, right)
    manager = await start(url, live=False, l2_timeout=1)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert (manager.health().reason or "").startswith("NOPERM ")
    await stays(manager, eventually)
    (line,) = refused_lines(caplog)
    assert re.search("permission", line)
    await give(private_redis, *ALL)
    await eventually(lambda: manager.health().l2 == "up" and manager.backplane.live)


async def cluster_info(node: ValkeyServer) -> bytes:
    """Return the state of a node's cluster, in the node's own words."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(f"AUTH {node.password}\r\nCLUSTER INFO\r\n".encode())
    try:
        return await reader.readuntil(b"cluster_known_nodes")
    finally:
        writer.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_node_of_a_cluster_never_looks_healthy(
    start: Any, configured: Any, eventually: Any, caplog: pytest.LogCaptureFixture, *, whole: bool
) -> None:
    """A node of a Redis Cluster is `refusing` with the server's words, whichever slots it has, and is one log line."""
    node = configured("cluster-enabled yes", f"cluster-port {free_port()}")
    if whole:
        await command(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def is_up() -> bool:
            return b"cluster_state:ok" in await cluster_info(node)

        await eventually(is_up)
    manager = await start(node.url(), live=False, l2_timeout=1)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert (manager.health().reason or "").split()[0] == ("CROSSSLOT" if whole else "CLUSTERDOWN")
    await stays(manager, eventually)
    await manager.cache("words", str).clear()
    assert len(refused_lines(caplog)) == 1


async def test_a_server_that_does_not_deliver_is_named(
    start: Any, private_redis: ValkeyServer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts what is published and delivers it to nobody is not taken for a channel."""
    monkeypatch.setattr("tequipy_caching.infrastructure.backplane.Backplane._handle", lambda *_: None)
    manager = await start(private_redis.url(), live=False)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert (manager.health().reason or "").startswith("UNDELIVERED ")


async def test_a_server_without_scripts_is_named(start: Any, configured: Any, eventually: Any) -> None:
    """A server whose commands for scripts were removed is named, without their arguments, which hold keys."""
    server = configured('rename-command EVALSHA ""')
    manager = await start(server.url(), live=False)
    await eventually(lambda: manager.health().l2 == "refusing")
    assert manager.health().reason == "ERR unknown command 'EVALSHA'"


async def test_it_works_without_info(start: Any, private_redis: ValkeyServer, eventually: Any) -> None:
    """Without the right for INFO the channel is live and carries deletes."""
    url = await give(private_redis, *ALL)
    one, other = [await start(url) for _ in range(2)]
    await one.cache("words", str).set("ada", "old")
    assert await other.cache("words", str).get("ada") == "old"
    await one.cache("words", str).delete("ada")
    await eventually(lambda: not other.cache("words", str).peek("ada"))
    assert (one.health().l2, one.health().backplane, one.health().reason) == ("up", "live", None)


async def test_an_older_snapshot_is_noticed_without_info(
    start: Any, private_redis: ValkeyServer, eventually: Any
) -> None:
    """A server that comes back with an older state begins a new epoch: what was deleted since is not believed."""
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
async def test_nothing_stands_in_after_a_delete_that_could_not_be_heard(
    start: Any, private_redis: ValkeyServer, right: str, factory: Any, policies: dict[str, CachePolicy]
) -> None:
    """What a process without a channel holds is neither fresh nor stands in: it may have been deleted."""
    policies["lasting"] = CachePolicy(ttl=0.05, jitter=0, fail_safe=600)
    one = await start(private_redis.url())
    deaf = await start(await give(private_redis, *ALL, right), live=False, l2_timeout=1)
    words, lasting = deaf.cache("words", str), deaf.cache("lasting", str)

    async def fails() -> str:
        raise LookupError("the database is away")

    for cache in (words, lasting):
        assert await cache.get_or_set("ada", factory("old")) == "old"
    for name in ("words", "lasting"):
        await one.cache(name, str).delete("ada")
    tombstones = await command(private_redis, "KEYS", f"{one.link.prefix}:cache:*")
    assert len(tombstones) == 2
    await command(private_redis, "DEL", *tombstones)  # their time is over
    assert await words.get("ada") is None
    assert await words.get_or_set("ada", factory("new")) == "new"
    stale = None
    with suppress(LookupError):
        stale = await lasting.get_or_set("ada", fails)
    assert stale is None


def least(name: str, prefix: str) -> list[str]:
    """Return the rights that the README gives a user, for another prefix."""
    (rights,) = re.findall(rf"^ACL SETUSER {name} on >\S+ (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"(?<=[~&])tequipy", prefix, right) for right in rights.split()]


async def ada() -> str:
    return "Ada"


async def joined_or_refused(link: RedisLink, backplane: Backplane) -> None:
    """Return when a process knows whether it can work."""
    async with asyncio.timeout(20):
        while not backplane.live and link.writes.refusal is None:
            await asyncio.sleep(0.002)
    with suppress(CacheUnavailable):
        await link.ping()


async def use_cache(start: Any, url: str) -> None:
    manager = await start(url, live=False)
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
    """Return what was denied since the last time, but for INFO."""
    async with Redis.from_url(server.url(), decode_responses=True) as redis:
        entries = await redis.acl_log()
        await redis.acl_log_reset()
    return {str(entry["object"]) for entry in entries} - {"info"}


@pytest.mark.parametrize("name", USES)
async def test_the_least_rights_suffice_and_each_is_needed(
    start: Any,
    limiters: Any,
    private_redis: ValkeyServer,
    name: str,
    policies: dict[str, CachePolicy],
    redis_prefix: str,
) -> None:
    """With the rights that the README names nothing but INFO is denied; without any one of them something is."""
    policies["lasting"] = CachePolicy(ttl=1, fail_safe=1, lock="cluster")
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

"""Expiring sets while Redis or the channel is unavailable: no added member is lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_devstack.servers import ValkeyServer

Start = Callable[..., Awaitable[tuple[TieredCacheManager, SharedExpiringSet]]]


async def test_a_member_added_without_redis_is_sent_later(
    open_set: Start, private_redis: ValkeyServer, eventually: Any
) -> None:
    """With Redis killed, an added member counts here and the set is not live; after the restart others get it."""
    (manager, one), (_, other) = await open_set(private_redis.url()), await open_set(private_redis.url())
    private_redis.kill()
    await eventually(lambda: not one.live and not other.live)
    await one.add("ada", ttl=600)
    await one.add("ada", ttl=60)
    await one.add("brief", ttl=0.001)
    assert ("ada" in one, await one.contains("ada"), await one.contains("bob")) == (True, True, False)
    assert not await other.contains("ada")
    private_redis.restart()
    await eventually(lambda: "ada" in other and one.live and other.live)
    assert other._members.ttls()["ada"] > 500
    assert "brief" not in other._members._expiries
    await eventually(lambda: not len(manager.link.recovery))


async def test_a_frozen_redis_costs_one_timeout(open_set: Start, private_redis: ValkeyServer, eventually: Any) -> None:
    """With Redis frozen, `contains` waits `l2_timeout` at most once; afterwards the set is live again."""
    _, one = await open_set(private_redis.url(), l2_timeout=0.5)
    await one.add("ada", ttl=600)
    private_redis.freeze()
    await eventually(lambda: not one.live)
    started = time.monotonic()
    assert not await one.contains("bob")
    first = time.monotonic() - started
    started = time.monotonic()
    for _ in range(100):
        assert not await one.contains("bob")
        assert await one.contains("ada")
    hundred = time.monotonic() - started
    print(f"first {first:.3f} s, the next hundred {hundred:.3f} s")
    assert hundred < 0.5
    private_redis.thaw()
    await eventually(lambda: one.live)


async def test_contains_asks_redis_while_the_channel_is_half_open(
    open_set: Start, private_redis: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """A silently cut channel is detected, and `contains` asks Redis until the channel is back."""
    _, one = await open_set(proxy_url)
    _, other = await open_set(private_redis.url())
    proxy.cut()
    started = time.monotonic()
    await other.add("ada", ttl=600)
    await eventually(lambda: not one.live)
    print(f"distrusted after {time.monotonic() - started:.2f} s")

    async def known() -> bool:
        return await one.contains("ada")

    await eventually(known)
    await eventually(lambda: one.live)
    assert "ada" in one


async def test_contains_asks_redis_while_the_channel_is_cut(
    open_set: Start, private_redis: ValkeyServer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While only the channel is cut, `contains` uses and remembers the answer of Redis."""
    (_, one), (_, other) = await open_set(private_redis.url()), await open_set(private_redis.url())
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 3)
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.client_kill_filter(_type="pubsub")
    await eventually(lambda: not one.live)
    await other.add("ada", ttl=600)
    assert not await one.contains("bob")
    assert await one.contains("ada")
    assert one._members.ttls()["ada"] > 500
    assert not one.live


@pytest.mark.parametrize("server", ["without permission to write", "full, without the channel", "away"])
async def test_the_source_answers_while_redis_does_not(
    open_set: Start, private_redis: ValkeyServer, eventually: Any, server: str
) -> None:
    """A member that another process added to the source is seen, although neither the channel nor Redis has it."""
    stored: dict[str, float] = {}

    async def source() -> dict[str, float]:
        return dict(stored)

    manager, one = await open_set(private_redis.url(), source=source)
    async with Redis.from_url(private_redis.url()) as redis:
        if server == "away":
            private_redis.kill()
        elif server == "full, without the channel":  # it answers questions, but cannot take what others add
            await redis.config_set("maxmemory-policy", "noeviction")
            await redis.config_set("maxmemory", 1)
            await manager.ping()
            await redis.acl_setuser("default", enabled=True, reset_channels=True)
        else:
            await redis.acl_setuser("default", enabled=True, reset_keys=True, keys=["%R~*"])
            await redis.client_kill_filter(_type="pubsub")
        await eventually(lambda: not one.live)
        assert not await one.contains("ada")
        stored["ada"] = 600

        async def known() -> bool:
            return await one.contains("ada")

        await eventually(known)
        assert not one.live


async def test_several_members_are_one_request(
    open_set: Start, private_redis: ValkeyServer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the channel is cut, `contains_any` sends one request for all members, and none if one is known."""
    (manager, one), (_, other) = await open_set(private_redis.url()), await open_set(private_redis.url())
    monkeypatch.setattr("tequipy_caching.redis.backplane._RECONNECT_AFTER", 3)
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.client_kill_filter(_type="pubsub")
    await eventually(lambda: not one.live)
    await other.add("ada", ttl=600)
    run, sent = manager.link.run, []

    async def counted(name: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        sent.append((name, *arguments))
        return await run(name, keys, arguments)

    monkeypatch.setattr(manager.link, "run", counted)
    assert not await one.contains_any(("bob", "eve"))
    assert await one.contains_any(("bob", "ada", "eve"))
    assert await one.contains_any(["eve", "ada"])
    assert sent == [("set_contains", "bob", "eve"), ("set_contains", "bob", "ada", "eve")]
    assert not one.live


async def test_a_process_sends_members_added_while_it_was_cut_off(
    open_set: Start, private_redis: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """A process that was cut off sends members added meanwhile, with their longest ttl, even if Redis lost nothing."""
    (_, one), (_, other) = await open_set(proxy_url), await open_set(private_redis.url())
    await proxy.refuse()
    await eventually(lambda: not one.live)
    await one.add("ada", ttl=600)
    await one.add("ada", ttl=60)
    await proxy.open()
    await eventually(lambda: "ada" in other)
    assert other._members.ttls()["ada"] > 500


async def test_members_beyond_the_size_of_the_queue_are_sent(
    open_set: Start, private_redis: ValkeyServer, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """If more members are pending than the recovery queue holds, the process sends all members that it knows."""
    (manager, one), (_, other) = await open_set(proxy_url), await open_set(private_redis.url())
    manager.link.recovery._limit = 5
    await proxy.refuse()
    await eventually(lambda: not one.live)
    await one.add(*(str(number) for number in range(1200)), ttl=600)
    assert len(manager.link.recovery) <= 5
    await proxy.open()
    await eventually(lambda: len(other._members.ttls()) == 1200)


async def test_a_cancelled_add_is_sent_again(
    open_set: Start, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled `add` is sent again, because it may not have been executed."""
    (manager, one), (_, other) = await open_set(redis_url), await open_set(redis_url)
    run_and_publish = manager.link.run_and_publish
    monkeypatch.setattr(manager.link, "run_and_publish", lambda *_, **__: asyncio.Event().wait())
    adding = asyncio.create_task(one.add("ada", ttl=600))
    await asyncio.sleep(0)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    monkeypatch.setattr(manager.link, "run_and_publish", run_and_publish)
    await eventually(lambda: "ada" in other)


async def test_an_invalid_message_causes_a_comparison(open_set: Start, redis_url: str, eventually: Any) -> None:
    """After a message that cannot be parsed, the set is live only when it has been compared again."""
    manager, one = await open_set(redis_url)
    for body in (["ada"], {"ada": "soon"}):
        with pytest.raises(ValueError, match="version"):
            one.on_message(body)
    one.on_gap()
    assert not one.live
    await eventually(lambda: one.live)
    assert manager.backplane.live

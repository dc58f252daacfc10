"""The limiter while Redis is unavailable: no caller sees an error or waits long, and the policy decides who passes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tequipy_caching import RateLimiter, RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer

Build = Callable[..., Awaitable[RedisRateLimiter]]

SLOW = RatePolicy("slow", 5, 3600)


async def hits(limiter: RateLimiter, policy: RatePolicy, number: int = 8) -> list[bool]:
    """Make so many hits without Redis, and return the allowed ones."""
    decisions = [await limiter.hit(policy, "ada") for _ in range(number)]
    assert all(decision.degraded for decision in decisions)
    return [decision.allowed for decision in decisions]


async def test_without_redis_the_policy_decides(limiters: Build, free_port: Callable[[], int]) -> None:
    """Without a server, `on_store_error` decides: this process keeps the bound alone, or all pass, or none."""
    limiter = await limiters(f"redis://127.0.0.1:{free_port()}", live=False)
    assert await hits(limiter, SLOW) == [True] * 5 + [False] * 3
    assert await hits(limiter, replace(SLOW, name="open", on_store_error="allow")) == [True] * 8
    assert await hits(limiter, replace(SLOW, name="shut", on_store_error="deny")) == [False] * 8
    assert await hits(limiter, replace(SLOW, name="leased", lease=2)) == [True] * 5 + [False] * 3
    assert (await limiter.peek(SLOW, "ada")).degraded
    assert (await limiter.peek(SLOW, "bob")).remaining == 5


async def test_an_outage_gives_no_second_burst(limiters: Build, private_redis: ValkeyServer) -> None:
    """Requests that passed before Redis was killed count afterwards, and earlier denials stay."""
    limiter = await limiters(private_redis.url())
    for _ in range(3):
        await limiter.hit(SLOW, "ada")
    while (refused := await limiter.hit(SLOW, "bob")).allowed:
        pass
    private_redis.kill()
    assert await hits(limiter, SLOW, 4) == [True, True, False, False]
    again = await limiter.hit(SLOW, "bob")
    assert (again.allowed, again.degraded) == (False, False)
    assert 0 < again.retry_after <= refused.retry_after


async def test_a_frozen_redis_costs_one_timeout(limiters: Build, private_redis: ValkeyServer, eventually: Any) -> None:
    """With Redis frozen, only the first hit waits `l2_timeout`; afterwards all processes count together again."""
    limiter, other = [await limiters(private_redis.url(), l2_timeout=0.5) for _ in range(2)]
    await limiter.hit(SLOW, "ada")
    private_redis.freeze()
    started = time.monotonic()
    assert (await limiter.hit(SLOW, "ada")).degraded
    first = time.monotonic() - started
    started = time.monotonic()
    for number in range(100):
        assert (await limiter.hit(SLOW, number)).degraded
    hundred = time.monotonic() - started
    print(f"first hit {first:.3f} s, the next hundred {hundred:.3f} s")
    assert hundred < first
    private_redis.thaw()
    await eventually(lambda: not limiter.link.breaker.open and not other.link.breaker.open)
    assert (await limiter.hit(SLOW, "eve")).remaining == 4
    assert (await other.hit(SLOW, "eve")).remaining == 3


async def test_the_limiters_connections_have_their_own_metrics(
    start: Any, limiters: Build, private_redis: ValkeyServer
) -> None:
    """The limiter's connections have their own metrics, so that the metrics of the caches describe only the caches."""
    registry = CollectorRegistry()
    manager = await start(private_redis.url(), registry=registry)
    limiter = await limiters(private_redis.url(), registry=registry, l2_timeout=0.25)
    await manager.cache("words", str).set("ada", "Ada")
    await limiter.hit(SLOW, "ada")
    private_redis.freeze()
    await limiter.hit(SLOW, "ada")
    await limiter.reset(SLOW, "ada")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }
    private_redis.thaw()
    assert samples["ratelimit_l2_seconds_count", "rate_hit"] == 1
    assert samples["ratelimit_l2_errors_total", "timeout"] == 1
    assert (samples["ratelimit_breaker_state",], samples["ratelimit_recovery_queue",]) == (1, 1)
    assert (samples["cache_breaker_state",], samples["cache_recovery_queue",]) == (0, 0)
    assert samples["cache_l2_seconds_count", "write"] == 1
    assert ("cache_l2_seconds_count", "rate_hit") not in samples
    assert not any(name.startswith("ratelimit_l1") for name, *_ in samples)


async def test_a_slow_redis_is_awaited(limiters: Build, proxy: Any, proxy_url: str) -> None:
    """Responses that are slow but in time are used."""
    limiter = await limiters(proxy_url, l2_timeout=5)
    proxy.delay = 0.1
    assert not (await limiter.hit(SLOW, "ada")).degraded


async def test_reset_connections_degrade_decisions_until_a_probe(
    limiters: Build, proxy: Any, proxy_url: str, eventually: Any
) -> None:
    """After connections are reset, decisions are degraded until a probe succeeds."""
    limiter = await limiters(proxy_url)
    assert not (await limiter.hit(SLOW, "ada")).degraded
    proxy.reset()
    await limiter.hit(SLOW, "ada")
    await eventually(lambda: not limiter.link.breaker.open)
    assert not (await limiter.hit(SLOW, "ada")).degraded


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
    ],
    ids=["READONLY", "OOM"],
)
async def test_hits_are_decided_locally_while_writes_are_refused(
    limiters: Build, private_redis: ValkeyServer, fault: list[str], mend: list[str]
) -> None:
    """While a server refuses writes, each hit asks it, and is decided in this process."""
    limiter = await limiters(private_redis.url())
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.execute_command(*fault)  # type: ignore[no-untyped-call]  # -- redis-py's own
        assert await hits(limiter, SLOW) == [True] * 5 + [False] * 3
        assert not limiter.link.breaker.open
        await redis.execute_command(*mend)  # type: ignore[no-untyped-call]  # -- as above
    assert not (await limiter.hit(SLOW, "eve")).degraded


@pytest.fixture
async def loading_url() -> AsyncIterator[str]:
    """Yield the URL of a server that answers LOADING to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_loading_redis_opens_the_breaker_of_the_limiter(limiters: Build, loading_url: str) -> None:
    """A server that is loading opens the breaker, and is probed in the background."""
    limiter = await limiters(loading_url, live=False)
    assert await hits(limiter, SLOW) == [True] * 5 + [False] * 3
    assert limiter.link.breaker.open


async def test_scripts_and_counts_may_be_lost(limiters: Build, private_redis: ValkeyServer, eventually: Any) -> None:
    """After SCRIPT FLUSH no count is lost; after a restart without data, counts begin at zero."""
    limiter = await limiters(private_redis.url())
    assert (await limiter.hit(SLOW, "ada")).remaining == 4
    async with Redis.from_url(private_redis.url()) as redis:
        await redis.script_flush()
    assert (await limiter.hit(SLOW, "ada")).remaining == 3
    private_redis.restart(empty=True)
    await eventually(lambda: limiter.backplane.live)
    await limiter.hit(SLOW, "ada")
    await eventually(lambda: not limiter.link.breaker.open)
    decision = await limiter.hit(SLOW, "bob")
    assert (decision.remaining, decision.degraded) == (4, False)


async def test_a_reset_is_replayed(limiters: Build, private_redis: ValkeyServer, eventually: Any) -> None:
    """A reset without Redis is effective here at once, and everywhere when Redis is back."""
    limiter, other = await limiters(private_redis.url()), await limiters(private_redis.url())
    for _ in range(6):
        await other.hit(SLOW, "ada")
    private_redis.kill()
    await limiter.reset(SLOW, "ada")
    await limiter.reset(SLOW, "ada")
    assert (await limiter.hit(SLOW, "ada")).allowed
    private_redis.restart()
    await eventually(lambda: not len(limiter.link.recovery))

    async def lifted() -> bool:
        return (await other.peek(SLOW, "ada")).allowed

    await eventually(lifted)
    assert limiter.overflow() == {}


async def test_a_cancelled_reset_is_replayed(
    limiters: Build, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled reset is sent again, because it may not have been executed."""
    limiter = await limiters(redis_url)
    await limiter.hit(SLOW, "ada")
    original = limiter.link.run_and_publish
    monkeypatch.setattr(limiter.link, "run_and_publish", lambda *_, **__: asyncio.Event().wait())
    resetting = asyncio.create_task(limiter.reset(SLOW, "ada"))
    await asyncio.sleep(0)
    resetting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resetting
    assert len(limiter.link.recovery) == 1
    monkeypatch.setattr(limiter.link, "run_and_publish", original)

    async def reset() -> bool:
        return (await limiter.peek(SLOW, "ada")).remaining == 5

    await eventually(reset)

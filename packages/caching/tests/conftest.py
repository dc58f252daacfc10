"""Fixtures of the caching tests."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from pydantic import SecretStr

from tequipy_caching import CachePolicy, Source
from tequipy_caching._manager import TieredCacheManager
from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_caching.wiring import CacheSettings, build_cache, build_rate_limiter
from tequipy_devstack.servers import ValkeyServer


class Factory:
    """A factory that returns a value and counts its calls; a held one waits for `go`."""

    def __init__(self, value: str, *, held: bool = False) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self._value = value
        if not held:
            self.go.set()

    async def __call__(self) -> str:
        self.calls += 1
        await self.go.wait()
        return self._value

    async def called(self) -> None:
        """Return when the factory has been called."""
        await eventually_true(lambda: self.calls > 0)


async def eventually_true(probe: Callable[[], bool | Awaitable[bool]], seconds: float = 20) -> None:
    """Return when the probe is true; fail if it is not true in time."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.002)


class Proxy:
    """A TCP proxy between a client and a server that can break connections."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        """Seconds that the server's answers are held back."""
        self.port = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.StreamWriter, asyncio.Event] = {}
        self._mute = False

    async def open(self) -> None:
        """Start to listen; after `refuse`, on the same port again."""
        self._mute = False
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def reset(self) -> None:
        """Reset all connections, and accept new ones."""
        for writer in list(self._pairs):
            linger = struct.pack("ii", 1, 0)
            with suppress(OSError):  # closed by its client
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def switch(self, port: int) -> None:
        """Lead new connections to another server, as a changed DNS record does; existing connections stay."""
        self._target = port

    def cut(self, *, also_new: bool = False) -> None:
        """Stop forwarding on the existing connections without closing them, so that they are half-open."""
        self._mute = also_new
        for cut in self._pairs.values():
            cut.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is gone
            writer.transport.abort()
            return
        cut = self._pairs[writer] = asyncio.Event()
        if self._mute:
            cut.set()
        try:
            await asyncio.gather(self._pump(reader, back, cut), self._pump(there, writer, cut, answers=True))
        except OSError:
            pass
        finally:
            del self._pairs[writer]
            back.close()
            writer.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, cut: asyncio.Event, *, answers: bool = False
    ) -> None:
        while data := await source.read(65536):
            if answers and self.delay:
                await asyncio.sleep(self.delay)
            if not cut.is_set():
                sink.write(data)
        sink.close()


@pytest.fixture
async def proxy(private_redis: ValkeyServer) -> AsyncIterator[Proxy]:
    """Yield an open proxy to the private server of the test."""
    proxy = Proxy(private_redis.port)
    await proxy.open()
    yield proxy
    await proxy.refuse()


@pytest.fixture
def proxy_url(private_redis: ValkeyServer, proxy: Proxy) -> str:
    """Return the URL of the private server through the proxy."""
    return private_redis.url().replace(str(private_redis.port), str(proxy.port))


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return eventually_true


@pytest.fixture
def factory() -> type[Factory]:
    return Factory


@pytest.fixture
def policies() -> dict[str, CachePolicy]:
    return {
        "words": CachePolicy(ttl=60),
        "others": CachePolicy(ttl=60),
        "brief": CachePolicy(ttl=0.05, jitter=0),
        "hasty": CachePolicy(ttl=60, hard_timeout=0.05),
        "small": CachePolicy(ttl=60, max_value_bytes=100),
        "local": CachePolicy(ttl=60, tiers="l1"),
        "remote": CachePolicy(ttl=60, tiers="l2"),
    }


@pytest.fixture
async def start(
    redis_prefix: str, policies: dict[str, CachePolicy]
) -> AsyncIterator[Callable[..., Awaitable[TieredCacheManager]]]:
    """Yield a function that starts a manager, as in another process, and waits until its channel is live."""
    async with AsyncExitStack() as stack:

        async def start(url: str, *, live: bool = True, registry: Any = None, **settings: Any) -> TieredCacheManager:
            # The default timeout is long, so that a busy machine is not an outage; tests of outages set their own.
            settings = {"prefix": redis_prefix, "policies": policies, "l2_timeout": 5, **settings}
            manager = build_cache(CacheSettings(url=SecretStr(url), **settings), registry=registry)
            assert isinstance(manager, TieredCacheManager)
            await stack.enter_async_context(manager)
            if live:
                await eventually_true(lambda: manager.backplane.live)
            return manager

        yield start


@pytest.fixture
async def limiters(redis_prefix: str) -> AsyncIterator[Callable[..., Awaitable[RedisRateLimiter]]]:
    """Yield a function that starts a rate limiter, as in another process, and waits until its channel is live."""
    async with AsyncExitStack() as stack:

        async def build(url: str, *, live: bool = True, registry: Any = None, **settings: Any) -> RedisRateLimiter:
            settings = {"prefix": redis_prefix, "l2_timeout": 5, **settings}
            limiter = build_rate_limiter(CacheSettings(url=SecretStr(url), **settings), registry=registry)
            assert isinstance(limiter, RedisRateLimiter)
            await stack.enter_async_context(limiter)
            if live:
                await eventually_true(lambda: limiter.backplane.live)
            return limiter

        yield build


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe a failed or refusing Redis ten times a second, for tests whose subject is not how soon that happens."""
    monkeypatch.setattr("tequipy_caching.redis.circuit_breaker.FIRST_PAUSE", 0.1)


@pytest.fixture
def open_set(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[tuple[TieredCacheManager, SharedExpiringSet]]]:
    """Return a function that opens a set, as in another process, and waits until it is live.

    A new set does not wait for other processes to add their members; tests of lost sets restore that wait.
    """
    monkeypatch.setattr("tequipy_caching.expiring_set.shared_set.OTHERS_WITHIN", 0.05)

    async def open_set(
        url: str, source: Source | None = None, *, live: bool = True, **settings: Any
    ) -> tuple[TieredCacheManager, SharedExpiringSet]:
        manager = await start(url, live=live, **settings)
        made = manager.expiring_set("revoked", source=source)
        if live:
            await eventually_true(lambda: made.live)
        return manager, made

    return open_set

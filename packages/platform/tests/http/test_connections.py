"""Connections: a full pool, and calls that are cancelled at any moment."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable

import httpx
import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.upstream import Exchange, Upstream, head, reply
from tequipy_platform.http import DeadlineExceeded, HttpClients, HttpSettings, build_http_clients

from .conftest import quick_settings, soon

CONNECTIONS = 20
RANDOM = random.Random(23)  # noqa: S311 -- moments


@pytest.fixture
async def few(registry: CollectorRegistry) -> AsyncIterator[HttpClients]:
    """Clients with few connections."""
    settings = HttpSettings(max_connections=CONNECTIONS)
    async with build_http_clients(settings, app_name="shop", app_version="1", registry=registry) as few:
        yield few


async def in_pieces(exchange: Exchange) -> bool:
    """Answer after a short time, in two pieces."""
    await asyncio.sleep(RANDOM.random() * 0.004)
    await exchange.write(head(200, {"Content-Length": "5"}) + b"he")
    await asyncio.sleep(0)
    await exchange.write(b"llo")
    return True


async def stream(client: httpx.AsyncClient, url: str) -> None:
    async with client.stream("GET", url) as response:
        async for _ in response.aiter_bytes():
            pass


async def cancel_at_random(calls: list[Awaitable[object]]) -> list[object]:
    """Run calls, cancel each of them at a random moment, and return their results."""
    tasks = [asyncio.ensure_future(call) for call in calls]

    async def cancel(task: asyncio.Future[object]) -> None:
        for _ in range(RANDOM.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()

    await asyncio.gather(*(cancel(task) for task in tasks))
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("kind", ["whole", "streamed", "deadline"])
async def test_no_cancelled_call_leaks_anything(
    few: HttpClients, upstream: Upstream, registry: CollectorRegistry, kind: str
) -> None:
    """After 1,000 calls that were cancelled at random moments, all 20 connections are free, and no other is open."""
    url = upstream.route("/pieces", in_pieces)

    def call(number: int) -> Awaitable[object]:
        if kind == "streamed":
            return stream(few.default, url)
        total = 0.0005 * (number % 20) if kind == "deadline" else 30.0
        return few.default.get(url, extensions={"total": total})

    ended: list[object] = []
    for _ in range(10):
        ended += await cancel_at_random([call(number) for number in range(100)])
    assert any(isinstance(each, DeadlineExceeded if kind == "deadline" else asyncio.CancelledError) for each in ended)

    together = asyncio.Event()
    waiting = 0

    async def wait_for_all(exchange: Exchange) -> bool:
        nonlocal waiting
        waiting += 1
        if waiting == CONNECTIONS:
            together.set()
        await together.wait()
        return await reply()(exchange)

    # Of another host, because the breaker of the first one may be open; the pool is the same.
    async with Upstream() as other, asyncio.timeout(60):
        url = other.route("/together", wait_for_all)
        responses = await asyncio.gather(*(few.default.get(url) for _ in range(CONNECTIONS)))
        await soon(
            "no other connection is open", lambda: len(upstream.connections) + len(other.connections) <= CONNECTIONS
        )
    assert {each.status_code for each in responses} == {200}
    labels = {"profile": "default"}
    assert registry.get_sample_value("http_client_requests_in_progress", labels) == 0


async def test_the_call_beyond_the_connections_waits_and_then_fails(
    upstream: Upstream, registry: CollectorRegistry
) -> None:
    """The 101st concurrent call waits for a connection as long as for `connect`, fails with PoolTimeout, and says
    nothing about the host; one that becomes free in time serves it."""
    free = asyncio.Event()

    async def held(exchange: Exchange) -> bool:
        await free.wait()
        return await reply()(exchange)

    url = upstream.route("/held", held)
    async with build_http_clients(
        quick_settings(60, connect=3), app_name="shop", app_version="1", registry=registry
    ) as http:
        calls = [asyncio.create_task(http.default.get(url)) for _ in range(100)]
        await soon("a hundred calls are held", lambda: len(upstream.requests) == 100)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(httpx.PoolTimeout):
            await http.default.get(url)
        waited = loop.time() - began
        refused = await asyncio.gather(*(http.default.get(url) for _ in range(30)), return_exceptions=True)
        assert {type(each) for each in refused} == {httpx.PoolTimeout}, "and not CircuitOpen"
        later = asyncio.create_task(http.default.get(url))
        await asyncio.sleep(0)
        free.set()
        assert (await later).status_code == 200
        assert {each.status_code for each in await asyncio.gather(*calls)} == {200}
    print(f"\n101st concurrent call: PoolTimeout after {waited:.2f} s (connect timeout 3 s), host not blamed")
    assert 3 <= waited < 30
    labels = {"profile": "default", "host": "127.0.0.1", "method": "GET", "outcome": "pool_timeout"}
    assert registry.get_sample_value("http_client_requests_total", labels) == 31


async def test_a_call_that_ends_during_the_tls_handshake_closes_its_connection(
    http: HttpClients, upstream: Upstream
) -> None:
    """A server that accepts, and never says a word of TLS, sees its connections closed at the deadline."""
    url = upstream.url.replace("http:", "https:")
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await http.default.get(url, extensions={"total": 0.2})
    await soon("the connections are closed", lambda: not upstream.connections)


async def test_a_response_that_cannot_be_decoded_releases_its_connection(few: HttpClients, upstream: Upstream) -> None:
    """An unknown encoding, which is refused before the body is read, costs no connection."""
    url = upstream.route("/brotli", reply(content_encoding="br"))
    for _ in range(2 * CONNECTIONS):
        with pytest.raises(httpx.DecodingError):
            await few.default.get(url)
    await soon("the connections are closed", lambda: not upstream.connections)


async def test_a_host_whose_calls_only_waited_for_a_connection_is_not_refused(upstream: Upstream) -> None:
    """Calls with a short total that find no free connection, because another host holds all, open no breaker."""
    settings = HttpSettings(max_connections=1)
    async with build_http_clients(settings, app_name="shop", app_version="1") as http:
        holder = asyncio.create_task(http.default.post(upstream.url + "/hang"))
        await soon("the connection is held", lambda: len(upstream.requests) == 1)
        async with Upstream() as other:
            starved = [http.default.get(other.url + "/ok", extensions={"total": 0.5}) for _ in range(30)]
            for error in await asyncio.gather(*starved, return_exceptions=True):
                assert isinstance(error, DeadlineExceeded)
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)
            assert (await http.default.get(other.url + "/ok")).status_code == 200

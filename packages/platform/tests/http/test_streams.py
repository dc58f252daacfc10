"""Streamed responses: read until the deadline, closed early, and never closed."""

import asyncio
import gc
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.upstream import Exchange, Upstream, head, redirect, reply, reset
from tequipy_platform.http import CircuitOpen, DeadlineExceeded, HttpClients, HttpSettings, build_http_clients

from .conftest import Ended, soon


@pytest.fixture
async def one(registry: CollectorRegistry) -> AsyncIterator[HttpClients]:
    """Clients with one connection each, so that one that is not released shows at once."""
    settings = HttpSettings(max_connections=1)
    async with build_http_clients(settings, app_name="shop", app_version="1", registry=registry) as one:
        yield one


async def test_a_streamed_body_is_read_as_it_arrives(one: HttpClients, upstream: Upstream, ended: Ended) -> None:
    """The caller has the first piece while the upstream still holds the second one; the call counts when it is over."""
    more = asyncio.Event()

    async def two_pieces(exchange: Exchange) -> bool:
        await exchange.write(head(200, {"Content-Length": "6"}) + b"one")
        await more.wait()
        await exchange.write(b"two")
        return True

    url = upstream.route("/pieces", two_pieces)
    async with one.llm.stream("GET", url) as response:
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"one"
        assert ended() == {}
        more.set()
        assert await anext(pieces) == b"two"
    assert ended() == {"200": 1}
    assert (await one.llm.get(upstream.url + "/ok")).text == "ok"


async def fail_while_reading(client: httpx.AsyncClient, url: str) -> None:
    async with client.stream("GET", url) as response:
        async for _ in response.aiter_raw():
            raise LookupError("of the caller")


async def test_a_response_that_is_closed_early_releases_its_connection(
    one: HttpClients, upstream: Upstream, ended: Ended
) -> None:
    """A caller that has read enough, or that fails while it reads, keeps no connection."""
    async with one.default.stream("GET", upstream.url + "/drip") as response:
        async for _ in response.aiter_raw():
            break
    with pytest.raises(LookupError):
        await fail_while_reading(one.default, upstream.url + "/drip")
    assert (await one.default.get(upstream.url + "/ok")).text == "ok"
    assert ended() == {"200": 3}


@pytest.mark.parametrize("read", [False, True], ids=["never_read", "read_once"])
async def test_a_response_that_is_never_closed_ends_at_the_deadline(
    one: HttpClients, upstream: Upstream, ended: Ended, read: bool
) -> None:
    """A caller that forgets a response holds its connection until the deadline, and no longer."""
    request = one.default.build_request("GET", upstream.url + "/drip", extensions={"total": 0.8})
    response = await one.default.send(request, stream=True)
    pieces = response.aiter_raw()
    if read:
        await anext(pieces)
    assert (await one.default.get(upstream.url + "/ok")).text == "ok", "the only connection is free again"
    assert ended() == {"deadline_exceeded": 1, "200": 1}
    with pytest.raises(DeadlineExceeded):
        await anext(pieces)
    await response.aclose()


async def test_a_forgotten_response_is_no_error(one: HttpClients, upstream: Upstream, ended: Ended) -> None:
    """A response that was dropped without closing it ends at its deadline without a warning."""
    request = one.default.build_request("GET", upstream.url + "/hang-in-body", extensions={"total": 0.3})
    await one.default.send(request, stream=True)
    gc.collect()
    await soon("the call has ended", lambda: ended() == {"deadline_exceeded": 1})
    await soon("the connection is closed", lambda: not upstream.connections)


async def test_an_error_in_the_body_releases_the_connection_at_once(
    one: HttpClients, upstream: Upstream, ended: Ended
) -> None:
    """After a body that breaks off, the connection is free even if the caller never closes the response."""
    for path in ("/truncated", "/reset-in-body"):
        response = await one.default.send(one.default.build_request("GET", upstream.url + path), stream=True)
        with pytest.raises(httpx.TransportError):
            await response.aread()
    assert (await one.default.get(upstream.url + "/ok")).text == "ok"
    assert ended() == {"remote_protocol_error": 1, "read_error": 1, "200": 1}


async def test_a_cancelled_reader_is_counted_as_cancelled(one: HttpClients, upstream: Upstream, ended: Ended) -> None:
    """A caller that is cancelled while it reads counts as `cancelled`, and not as the status of the head."""

    async def read() -> None:
        async with one.default.stream("GET", upstream.url + "/hang-in-body") as response:
            await response.aread()

    task = asyncio.create_task(read())
    await soon("the upstream has the request", lambda: len(upstream.requests) == 1)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})
    assert ended() == {"cancelled": 1}


async def test_the_breaker_judges_a_streamed_call_by_the_end_of_its_body(one: HttpClients, upstream: Upstream) -> None:
    """A host whose bodies all break off is refused after 20 calls, although each head was 200."""
    for _ in range(20):
        async with one.default.stream("GET", upstream.url + "/truncated") as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
    with pytest.raises(CircuitOpen):
        await one.default.get(upstream.url + "/ok")


async def test_a_streamed_failure_is_retried_before_the_caller_sees_it(one: HttpClients, upstream: Upstream) -> None:
    """503 twice and then 200 is one streamed response; the connection of the failures is used again."""
    url = upstream.route("/recovers", reply(503), reply(503), reply(200, b"fine"))
    async with one.default.stream("GET", url) as response:
        assert (response.status_code, await response.aread()) == (200, b"fine")
    assert (len(upstream.requests), len(upstream.connections)) == (3, 1)


async def test_a_streamed_failure_of_the_last_attempt_has_its_body(one: HttpClients, upstream: Upstream) -> None:
    """The caller can read the body of the last 503."""
    url = upstream.route("/down", reply(503, b"later"))
    async with one.default.stream("GET", url) as response:
        assert (response.status_code, await response.aread()) == (503, b"later")
    assert len(upstream.requests) == 3


async def test_redirects_are_followed_to_a_streamed_response(one: HttpClients, upstream: Upstream) -> None:
    """A streamed call follows redirects, and each response on the way releases its connection."""

    async def to_ok(exchange: Exchange) -> bool:
        await exchange.write(head(302, {"Location": "/ok", "Content-Length": "4"}) + b"gone")
        return True

    url = upstream.route("/moved", to_ok)
    async with one.default.stream("GET", url) as response:
        assert await response.aread() == b"ok"


async def test_redirects_without_end_are_refused(one: HttpClients, upstream: Upstream) -> None:
    """After 20 redirects the call fails, streamed or not, and has released its connection."""
    url = upstream.route("/round", redirect)
    with pytest.raises(httpx.TooManyRedirects):
        await one.default.get(url)
    with pytest.raises(httpx.TooManyRedirects):
        async with one.default.stream("GET", url):
            raise AssertionError("there is no response")
    assert len(upstream.requests) == 42
    assert (await one.default.get(upstream.url + "/ok")).text == "ok"


async def test_a_reset_connection_that_was_idle_is_replaced(one: HttpClients, upstream: Upstream) -> None:
    """An idle connection that the upstream resets costs no call, not even a POST."""

    async def and_reset(exchange: Exchange) -> bool:
        await reply()(exchange)
        reset(exchange.writer)
        return False

    url = upstream.route("/once", and_reset)
    for _ in range(5):
        assert (await one.default.post(url)).text == "ok"
        await soon("the upstream has closed", lambda: not upstream.connections)

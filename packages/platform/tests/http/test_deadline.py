"""One deadline spans connecting, all attempts, sending and reading the body, whatever the upstream does."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from threading import Event
from typing import Any

import httpx
import pytest
import uvloop
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.upstream import DRIP_SECONDS, Upstream, reply, unaccepting
from tequipy_platform.http import DeadlineExceeded, HttpClients, HttpSettings, build_http_clients

from .conftest import count_ended, quick_settings

TOTAL = {"total": 0.5}
LARGE = b"." * 20_000_000
"""More than the buffers of both sides of a connection."""

CASES = [
    ("GET", "/hang", None),
    ("GET", "/hang-in-body", None),
    ("GET", "/drip", None),
    ("GET", "/drip-head", None),
    ("GET", "/endless-hints", None),
    ("GET", "/redirect-slowly", None),
    ("POST", "/unread", LARGE),
]


async def slow_redirect(exchange: Any) -> bool:
    await asyncio.sleep(DRIP_SECONDS / 10)
    await exchange.write(b"HTTP/1.1 302 Found\r\nLocation: /redirect-slowly\r\nContent-Length: 0\r\n\r\n")
    return True


async def call(client: httpx.AsyncClient, method: str, url: str, content: bytes | None, *, streamed: bool) -> None:
    """Make a call with a short total, and read its response."""
    if not streamed:
        await client.request(method, url, content=content, extensions=TOTAL)
        return
    async with client.stream(method, url, content=content, extensions=TOTAL) as response:
        async for _ in response.aiter_bytes():
            pass


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("method", "path", "content"), CASES, ids=[path for _, path, _ in CASES])
async def test_a_call_ends_at_its_total(
    http: HttpClients, upstream: Upstream, method: str, path: str, content: bytes | None, streamed: bool
) -> None:
    """A call ends at its total, long before its read timeout of 25 s, wherever the upstream is slow."""
    upstream.route("/redirect-slowly", slow_redirect)
    url = upstream.url + path
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded) as ended:
        await call(http.default, method, url, content, streamed=streamed)
    assert TOTAL["total"] <= asyncio.get_running_loop().time() - began
    assert ended.value.request.method == method
    assert len(upstream.requests) >= 1


async def test_the_deadline_spans_all_attempts_and_their_waits(upstream: Upstream) -> None:
    """A first attempt that takes a part of the total leaves only the rest for the second one."""
    http = HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 0.5)

    async def late(exchange: Any) -> bool:
        await asyncio.sleep(0.6)
        return await reply(503)(exchange)

    url = upstream.route("/late", late)
    async with http:
        with pytest.raises(DeadlineExceeded):
            await http.default.get(url, extensions={"total": 1.1})
    assert len(upstream.requests) == 2


async def test_the_deadline_spans_connecting(http: HttpClients) -> None:
    """A connection that is not established ends the call at its total, or at its connect timeout if that is shorter."""
    with unaccepting() as url:
        with pytest.raises(DeadlineExceeded):
            await http.default.get(url, extensions=TOTAL)
        settings = quick_settings(10, connect=0.1)
        async with build_http_clients(settings, app_name="shop", app_version="1") as impatient:
            with pytest.raises(httpx.ConnectTimeout):
                await impatient.default.post(url)


async def test_a_name_server_that_does_not_answer_delays_nothing_else(
    http: HttpClients, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lookups without an answer end their calls at the total, and block no thread that others use."""
    look_up, released = socket.getaddrinfo, Event()

    def hang(host: object, *arguments: Any, **options: Any) -> object:
        if host in {"api.example.com", b"api.example.com"}:
            released.wait(60)
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        calls = [http.default.get("http://api.example.com/", extensions=TOTAL) for _ in range(40)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, DeadlineExceeded)
        # The threads of the event loop are used by files, PostgreSQL and Redis.
        async with asyncio.timeout(30):
            await asyncio.to_thread(released.is_set)
        assert (await http.llm.get(upstream.url + "/ok")).status_code == 200
    finally:
        released.set()


async def test_a_name_server_that_does_not_answer_is_no_fault_of_other_hosts(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls to other hosts, whose lookups did not begin in time, fail with PoolTimeout, and open no breaker."""
    look_up, released = socket.getaddrinfo, Event()

    def hang(host: object, *arguments: Any, **options: Any) -> object:
        if host in {"api.example.com", b"api.example.com"}:
            released.wait(60)
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    settings = quick_settings(60, connect=0.3)
    async with build_http_clients(settings, app_name="shop", app_version="1") as http:
        try:
            hung = [asyncio.create_task(http.default.get("http://api.example.com/")) for _ in range(10)]
            await asyncio.sleep(0)
            calls = [http.default.get(upstream.url + "/ok") for _ in range(30)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in ended} == {httpx.PoolTimeout}
        finally:
            released.set()
        await asyncio.gather(*hung, return_exceptions=True)
        assert (await http.default.get(upstream.url + "/ok")).status_code == 200


async def test_a_read_timeout_that_equals_the_total_leaves_no_cancellation_behind(upstream: Upstream) -> None:
    """If the read timeout and the deadline expire at once, the call ends with one of both, and its task goes on."""
    async with build_http_clients(quick_settings(0.05), app_name="shop", app_version="1") as http:
        for _ in range(20):
            with pytest.raises(httpx.TimeoutException):
                await http.default.post(upstream.url + "/hang")
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)


async def test_a_timeout_of_the_caller_stays_its_own(http: HttpClients, upstream: Upstream) -> None:
    """`TimeoutError` from the body that the caller sends, and its own `asyncio.timeout`, are no `DeadlineExceeded`."""

    async def body() -> AsyncIterator[bytes]:
        yield b"."
        raise TimeoutError("of the caller")

    with pytest.raises(TimeoutError, match="of the caller"):
        await http.default.post(upstream.url + "/ok", content=body())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await http.default.get(upstream.url + "/hang")


async def test_a_longer_total_than_the_profile_has_is_not_granted(upstream: Upstream) -> None:
    """A call can shorten the deadline of its profile only."""
    async with build_http_clients(quick_settings(0.2), app_name="shop", app_version="1") as http:
        for total in (100.0, float("nan")):
            with pytest.raises(httpx.TimeoutException):
                await http.health.post(upstream.url + "/hang", extensions={"total": total})


async def test_the_extensions_of_the_caller_are_not_changed(http: HttpClients, upstream: Upstream) -> None:
    """One dictionary of extensions serves many calls, each with a deadline of its own."""
    extensions = {"total": 5.0}
    for _ in range(2):
        request = httpx.Request("GET", upstream.url + "/ok", extensions=extensions)
        assert (await http.default.send(request)).status_code == 200
    assert extensions == {"total": 5.0}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_deadline_is_counted_as_one_on_every_event_loop(run: Callable[..., None]) -> None:
    """Each of 40 deadlines counts as `deadline_exceeded` and against the host, though timers of uvloop can be early."""
    registry = CollectorRegistry()

    async def calls() -> None:
        async with (
            Upstream() as upstream,
            build_http_clients(HttpSettings(), app_name="shop", app_version="1", registry=registry) as http,
        ):
            for number in range(10):
                await asyncio.gather(
                    *(
                        http.default.post(upstream.url + "/hang", extensions={"total": 0.02 + number / 3000})
                        for _ in range(4)
                    ),
                    return_exceptions=True,
                )

    run(calls())
    # The breaker opens at the twentieth failure, and refuses the calls after it.
    counted = count_ended(registry)
    assert counted.pop("circuit_open") + counted.pop("deadline_exceeded") == 40
    assert counted == {}

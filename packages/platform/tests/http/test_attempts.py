"""Attempts: what is sent again, how long the wait is, and how many retries a host gets."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving.upstream import Answer, Upstream, reply, reset_in_body, reset_in_head, truncate
from tequipy_platform.http import CircuitOpen, HttpClients, HttpSettings
from tequipy_platform.http.retries import BUDGET_SHARE, FREE_RETRIES, backoff, retry_after
from tequipy_platform.testing.http import MemoryUpstreams

from .conftest import quick_settings, soon


@pytest.fixture
def patient() -> HttpClients:
    """Clients whose waits are at their upper bound."""
    return HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 1.0)


@pytest.mark.parametrize(
    ("method", "headers", "content", "attempts"),
    [
        ("GET", {}, None, 3),
        ("HEAD", {}, None, 3),
        ("PUT", {}, b"whole", 3),
        ("DELETE", {}, None, 3),
        ("POST", {}, b"whole", 1),
        ("PATCH", {}, b"whole", 1),
        ("POST", {"Idempotency-Key": "1"}, b"whole", 3),
        ("PATCH", {"idempotency-key": "1"}, b"whole", 3),
    ],
)
async def test_503_twice_and_then_200(
    upstream: Upstream, method: str, headers: dict[str, str], content: bytes | None, attempts: int
) -> None:
    """Idempotent requests, and others with an Idempotency-Key, are sent three times; their bodies are sent whole."""
    url = upstream.route("/recovers", reply(503), reply(503), reply(200))
    http = HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 0.0)
    async with http:
        response = await http.default.request(method, url, headers=headers, content=content)
    kind = f"{method} with Idempotency-Key" if headers else method
    print(f"\n503 twice, then 200: {kind}: {len(upstream.requests)} attempts, {response.status_code}")
    assert (len(upstream.requests), response.status_code) == (attempts, 200 if attempts == 3 else 503)


async def test_a_body_that_can_be_sent_once_is_sent_once(upstream: Upstream) -> None:
    """A PUT whose body is a generator is not repeated, because its body is consumed."""

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    url = upstream.route("/put", reply(503))
    async with HttpClients(HttpSettings(), user_agent="shop/1") as http:
        assert (await http.default.put(url, content=body())).status_code == 503
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 408, 409, 425, 500, 501, 505])
async def test_other_statuses_are_not_retried(upstream: Upstream, status: int) -> None:
    """Statuses that a further attempt would not change, or of unknown effect, are responses."""
    url = upstream.route("/status", reply(status))
    async with HttpClients(HttpSettings(), user_agent="shop/1") as http:
        assert (await http.default.get(url)).status_code == status
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_passing_statuses_are_retried(upstream: Upstream, status: int) -> None:
    """Statuses that a proxy or an overloaded server sends are retried."""
    url = upstream.route("/status", reply(status), reply(200))
    async with HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 0.0) as http:
        assert (await http.default.get(url)).status_code == 200


@pytest.mark.parametrize("answer", [reset_in_head, reset_in_body, truncate], ids=lambda answer: answer.__name__)
async def test_a_broken_connection_is_retried(upstream: Upstream, answer: Answer) -> None:
    """A connection that breaks in the head or in the body is an attempt, and the next one is whole."""
    url = upstream.route("/breaks", answer, answer, reply(200, b"whole"))
    async with HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 0.0) as http:
        assert (await http.default.get(url)).text == "whole"
        assert len(upstream.requests) == 3
        upstream.route("/breaks", answer)
        with pytest.raises(httpx.TransportError):
            await http.default.post(url)
    assert len(upstream.requests) == 4


async def test_a_refused_connection_is_retried_by_get_alone() -> None:
    """Nobody listens: GET has three attempts, POST one."""
    port, attempts = free_port(), 0

    def jitter() -> float:
        nonlocal attempts
        attempts += 1
        return 0.0

    async with HttpClients(HttpSettings(), user_agent="shop/1", jitter=jitter) as http:
        with pytest.raises(httpx.ConnectError):
            await http.default.get(f"http://127.0.0.1:{port}/")
        assert attempts == 2
        with pytest.raises(httpx.ConnectError):
            await http.default.post(f"http://127.0.0.1:{port}/")
        assert attempts == 2


async def test_a_head_without_end_is_refused(http: HttpClients, upstream: Upstream) -> None:
    """A header field without end ends the attempt at 100 KiB, and is no reason to fill the memory."""
    with pytest.raises(httpx.RemoteProtocolError):
        await http.default.post(upstream.url + "/endless-head")


def in_seconds(seconds: float) -> str:
    """Return an HTTP date."""
    # A date has whole seconds, so it is rounded up.
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds + 0.999), usegmt=True)


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("1", 1.0),
        ("date", 1.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("1.5", 0.0),
        ("٣", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
    ],
)
async def test_retry_after_is_waited_for(upstream: Upstream, text: str, waits: float) -> None:
    """A Retry-After that fits the deadline is the least wait; an invalid, past or negative one changes nothing."""
    value = in_seconds(1) if text == "date" else text.encode().decode("latin-1")
    url = upstream.route("/later", reply(429, retry_after=value), reply(200))
    loop = asyncio.get_running_loop()
    async with HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 0.0) as http:
        began = loop.time()
        response = await http.default.get(url)
        waited = loop.time() - began
    print(f"\nRetry-After {text}: {len(upstream.requests)} attempts, {response.status_code} after {waited:.2f} s")
    assert (response.status_code, len(upstream.requests)) == (200, 2)
    assert waited >= waits


@pytest.mark.parametrize("text", ["3600", "30", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(upstream: Upstream, text: str) -> None:
    """The response is returned at once, with its Retry-After, and the caller decides."""
    url = upstream.route("/later", reply(503, retry_after=text))
    loop = asyncio.get_running_loop()
    async with HttpClients(HttpSettings(), user_agent="shop/1") as http:
        began = loop.time()
        response = await http.default.get(url)
        waited = loop.time() - began
    print(f"\nRetry-After {text[:30]}: {len(upstream.requests)} attempt, {response.status_code} after {waited:.2f} s")
    assert (response.status_code, response.headers["Retry-After"], len(upstream.requests)) == (503, text, 1)


@given(
    st.one_of(st.text(), st.text("0123456789 :+-,GMTZSunMonJanDec", max_size=40), st.datetimes().map(format_datetime))
)
def test_every_retry_after_is_a_wait_or_nothing(text: str) -> None:
    """No text of a Retry-After raises an error, and no wait is negative."""
    value = text.encode("utf-8", "surrogatepass").decode("latin-1").replace("\r", "").replace("\n", "")
    wait = retry_after(httpx.Response(503, headers=[(b"Retry-After", value.encode("latin-1"))]))
    assert wait is None or wait >= 0


@given(st.integers(0, 8), st.floats(0, 1, exclude_max=True))
def test_waits_double_with_full_jitter(retries: int, jitter: float) -> None:
    """The wait before a retry is random, from 0 to 0.2 s, 0.4 s, 0.8 s and so on."""
    assert backoff(retries, lambda: jitter) == pytest.approx(jitter * 0.2 * 2**retries)


async def test_calls_at_the_same_time_share_the_budget(upstream: Upstream) -> None:
    """A hundred calls to a failing host at the same time make 10 retries and not 200."""
    settings = HttpSettings(max_connections=200)
    url = upstream.route("/429", reply(429))  # which does not open the breaker
    async with HttpClients(settings, user_agent="shop/1", jitter=lambda: 0.1) as http:
        await asyncio.gather(*(http.default.get(url) for _ in range(100)))
    retries = len(upstream.requests) - 100
    print(f"\n100 calls at once to a host that sends 429: {retries} retries")
    assert retries <= max(FREE_RETRIES, BUDGET_SHARE * len(upstream.requests))


async def test_a_quiet_host_may_always_retry(upstream: Upstream) -> None:
    """Each of five calls, far apart from all others, gets its two retries, although they are most of the requests."""
    http = HttpClients(HttpSettings(), user_agent="shop/1", jitter=lambda: 0.0)
    async with http:
        for _ in range(5):
            url = upstream.route("/recovers", reply(429), reply(429), reply(200))
            assert (await http.default.get(url)).status_code == 200
    assert len(upstream.requests) == 15


async def test_a_call_that_waits_for_its_retry_is_refused_when_the_breaker_opens(upstream: Upstream) -> None:
    """A retry is not sent if the breaker has opened during the wait, and a call that opens it is not retried."""
    url = upstream.route("/later", reply(503, retry_after="4"))
    async with HttpClients(quick_settings(60), user_agent="shop/1") as http:
        waiting = asyncio.create_task(http.default.get(url))
        await soon("the first attempt has failed", lambda: len(upstream.requests) == 1)
        await asyncio.gather(*(http.default.post(upstream.url + "/503") for _ in range(20)))
        assert not waiting.done()
        with pytest.raises(CircuitOpen):
            await waiting
    assert len(upstream.requests) == 21


def test_memory_upstreams_wait_for_nothing() -> None:
    """The twin in memory repeats attempts without a pause."""
    upstreams = MemoryUpstreams()
    upstreams.route("GET https://api.example.com/", httpx.Response(503))

    async def call() -> int:
        async with upstreams.clients as http:
            return (await http.default.get("https://api.example.com/")).status_code

    assert asyncio.run(call()) == 503
    assert len(upstreams.requests) == 3

"""The HTTP client: attempts, header fields, errors and what a shared client must not keep."""

import gzip

import httpx
import pytest
from prometheus_client import CollectorRegistry

from tequipy_observability import RequestContext, request_context
from tequipy_platform.http import DeadlineExceeded, HttpSettings, build_http_clients
from tequipy_platform.testing.http import MemoryUpstreams

URL = "https://api.example.com/prices"


def answers(*statuses: int) -> tuple[MemoryUpstreams, str]:
    """Return upstreams that answer one request after the other with these statuses."""
    upstreams = MemoryUpstreams()

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(statuses[min(len(upstreams.requests), len(statuses)) - 1], json={})

    upstreams.route(f"* {URL}", answer)
    return upstreams, URL


@pytest.mark.parametrize(
    ("method", "headers", "attempts", "status"),
    [("GET", {}, 3, 200), ("POST", {}, 1, 503), ("POST", {"Idempotency-Key": "1"}, 3, 200)],
)
async def test_only_what_may_be_repeated_is_retried(
    method: str, headers: dict[str, str], attempts: int, status: int
) -> None:
    """After 503 twice, GET and a POST with Idempotency-Key are sent a third time; a plain POST is sent once."""
    upstreams, url = answers(503, 503, 200)
    async with upstreams.clients as http:
        response = await http.default.request(method, url, headers=headers)
    assert (len(upstreams.requests), response.status_code) == (attempts, status)


async def test_a_call_says_who_makes_it_and_for_which_request() -> None:
    """User-Agent, correlation id and trace are on every call; what the caller sets itself stays."""
    upstreams, url = answers(200)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with upstreams.clients as http:
        with request_context(RequestContext(correlation_id="abc", traceparent=trace)):
            await http.llm.get(url)
            await http.llm.get(url, headers={"X-Correlation-ID": "other"})
    first, second = upstreams.requests
    assert (first.headers["X-Correlation-ID"], first.headers["traceparent"]) == ("abc", trace)
    assert first.headers["User-Agent"] == "test/0"
    assert second.headers["X-Correlation-ID"] == "other"


async def test_no_cookie_is_kept() -> None:
    """A cookie that an upstream sets for one caller is not sent with the next call of another."""
    upstreams = MemoryUpstreams()
    upstreams.route(f"GET {URL}", httpx.Response(200, headers={"Set-Cookie": "session=1"}))
    async with upstreams.clients as http:
        await http.default.get(URL)
        await http.default.get(URL)
    assert "cookie" not in upstreams.requests[1].headers


async def test_redirects_are_followed_by_the_default_profile_alone() -> None:
    """The other profiles return the redirect, and refuse a call that asks to follow it."""
    upstreams = MemoryUpstreams()
    upstreams.route(f"GET {URL}", httpx.Response(302, headers={"Location": "https://other.example.com/"}))
    upstreams.route("GET https://other.example.com/", httpx.Response(200))
    async with upstreams.clients as http:
        assert (await http.default.get(URL)).status_code == 200
        for client in (http.llm, http.health, http.webhooks):
            assert (await client.get(URL)).status_code == 302
            with pytest.raises(ValueError, match="default profile alone"):
                await client.get(URL, follow_redirects=True)


async def test_a_call_may_have_a_shorter_deadline() -> None:
    """`total` in the extensions of a call ends it earlier than its profile does."""
    registry = CollectorRegistry()
    clients = build_http_clients(HttpSettings(), app_name="shop", app_version="1", registry=registry)
    async with clients as http:
        with pytest.raises(DeadlineExceeded):
            await http.default.get("http://127.0.0.1:9/", extensions={"total": 0.0})
    labels = {"profile": "default", "host": "127.0.0.1", "method": "GET", "outcome": "deadline_exceeded"}
    assert registry.get_sample_value("http_client_requests_total", labels) == 1


async def test_upstreams_in_memory_send_what_a_route_says() -> None:
    """The response of a route is sent again for each request, a compressed one and repeated fields too."""
    upstreams = MemoryUpstreams()
    headers = [("Content-Encoding", "gzip"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    upstreams.route(f"GET {URL}", httpx.Response(200, headers=headers, content=gzip.compress(b"prices")))
    upstreams.route(f"POST {URL}", httpx.Response(200, stream=httpx.AsyncByteStream()))
    async with upstreams.clients as http:
        for _ in range(2):
            response = await http.default.get(URL)
            assert (response.content, response.headers.get_list("Set-Cookie")) == (b"prices", ["a=1", "b=2"])
        with pytest.raises(TypeError, match="use a function"):
            await http.default.post(URL)

"""Spans of outgoing calls."""

from collections.abc import Iterator

import httpx
import pytest

from tequipy_observability import SpanKind, entry_span
from tequipy_observability.testing import RecordedSpan, SpanRecorder, recorded_spans
from tequipy_platform.http import HttpSettings
from tequipy_platform.testing.http import MemoryUpstreams

URL = "https://api.example.com/prices/s3cret"


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    with recorded_spans() as recorder:
        yield recorder


async def call(upstreams: MemoryUpstreams, spans: SpanRecorder, method: str = "GET") -> list[RecordedSpan]:
    """Make a call within a request, whatever comes of it, and return the spans of the call."""
    async with upstreams.clients as http:
        with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
            try:
                await http.default.request(method, URL, params={"key": "s3cret"})
            except httpx.TransportError as error:
                print(f"{type(error).__name__}: {error}")
    request, *calls = spans.spans
    assert {each.parent_id for each in calls} == {request.span_id}
    assert "s3cret" not in str(spans.spans)
    return calls


async def test_a_call_is_a_span_which_the_upstream_continues(spans: SpanRecorder) -> None:
    """A call has the upstream's address and status, no path and no query; its id is in the request's field."""
    upstreams = MemoryUpstreams()
    upstreams.route("GET *", httpx.Response(200))
    (found,) = await call(upstreams, spans)
    assert (found.name, found.kind, found.failed) == ("GET", SpanKind.CLIENT, False)
    assert found.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "api.example.com",
        "server.port": 443,
        "tequipy.http_profile": "default",
    }
    assert upstreams.requests[0].headers["traceparent"].startswith(found.traceparent)


async def test_attempts_are_events_of_the_call(spans: SpanRecorder) -> None:
    """A call that succeeds at the third attempt is one span with the two failed ones."""
    upstreams = MemoryUpstreams()
    upstreams.route(
        "GET *", lambda _: httpx.Response(503 if len(upstreams.requests) < 3 else 200, headers={"Retry-After": "0"})
    )
    (found,) = await call(upstreams, spans)
    assert (found.failed, found.events) == (False, ("http.attempt_failed",) * 2)
    assert found.attributes["http.request.resend_count"] == 2
    assert len({request.headers["traceparent"] for request in upstreams.requests}) == 1


@pytest.mark.parametrize(("status", "error"), [(404, "404"), (500, "500")])
async def test_a_status_of_an_error_fails_the_call(spans: SpanRecorder, status: int, error: str) -> None:
    """A call that the upstream refuses has failed, by its status."""
    upstreams = MemoryUpstreams(HttpSettings(attempts=1))
    upstreams.route("GET *", httpx.Response(status))
    (found,) = await call(upstreams, spans)
    assert (found.failed, found.attributes["error.type"]) == (True, error)


async def test_a_call_without_a_response_fails_by_its_error(spans: SpanRecorder) -> None:
    """A call that gets no response has the kind of the last error, as the metrics have it."""

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("All connection attempts failed: s3cret")

    upstreams = MemoryUpstreams()
    upstreams.route("* *", refuse)
    (found,) = await call(upstreams, spans)
    assert (found.failed, found.attributes["error.type"]) == (True, "connect_error")
    assert "http.response.status_code" not in found.attributes


async def test_a_redirected_call_is_two_spans(spans: SpanRecorder) -> None:
    """Each request of a redirected call is a span, and carries its own id."""
    upstreams = MemoryUpstreams()
    upstreams.route("GET *", httpx.Response(302, headers={"Location": "https://other.example.com/"}))
    upstreams.route("GET https://other.example.com/", httpx.Response(200))
    calls = await call(upstreams, spans)
    assert [each.attributes["server.address"] for each in calls] == ["api.example.com", "other.example.com"]
    for each, request in zip(calls, upstreams.requests, strict=True):
        assert request.headers["traceparent"].startswith(each.traceparent)


async def test_a_streamed_call_ends_with_its_body(spans: SpanRecorder) -> None:
    """The span of a streamed call ends when its body has been read, not when its response has begun."""
    upstreams = MemoryUpstreams()
    upstreams.route("GET *", httpx.Response(200, content=b"body"))
    async with upstreams.clients as http:
        with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
            async with http.default.stream("GET", URL) as response:
                assert spans.spans == []
                await response.aread()
    assert [each.name for each in spans.spans] == ["request", "GET"]


async def test_a_call_keeps_the_callers_own_trace(spans: SpanRecorder) -> None:
    """A traceparent that the caller sets itself is sent as it is."""
    own = f"00-{'a' * 32}-{'b' * 16}-01"
    upstreams = MemoryUpstreams()
    upstreams.route("GET *", httpx.Response(200))
    async with upstreams.clients as http:
        with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
            await http.default.get(URL, headers={"traceparent": own})
    assert upstreams.requests[0].headers["traceparent"] == own
    assert [each.name for each in spans.spans] == ["request", "GET"]

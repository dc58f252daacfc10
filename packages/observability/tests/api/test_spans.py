"""The span of a request."""

from collections.abc import Iterator

import httpx
import pytest

from tequipy_observability import SpanKind
from tequipy_observability.testing import SpanRecorder, recorded_spans

from ..log_lines import Lines

TRACE_ID = "a" * 32
SAMPLED = f"00-{TRACE_ID}-{'b' * 16}-01"
UNSAMPLED = f"00-{TRACE_ID}-{'b' * 16}-00"


@pytest.fixture
def spans(client: httpx.AsyncClient) -> Iterator[SpanRecorder]:  # noqa: ARG001 -- the app is built before
    with recorded_spans() as recorder:
        yield recorder


async def test_a_request_is_one_span(client: httpx.AsyncClient, spans: SpanRecorder) -> None:
    """It is named by method and route template, and holds no path, query, address and user agent."""
    headers = {"X-Correlation-ID": "abc", "traceparent": SAMPLED}
    await client.get("/api/outer/inner/7?token=s3cret", headers=headers)
    (found,) = spans.spans
    assert (found.name, found.kind, found.failed) == ("GET /api/outer/inner/{number}", SpanKind.SERVER, False)
    assert (found.trace_id, found.parent_id) == (TRACE_ID, "b" * 16)
    assert found.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/api/outer/inner/{number}",
        "network.protocol.version": "1.1",
        "tequipy.correlation_id": "abc",
        "url.scheme": "http",
    }


@pytest.mark.parametrize(
    ("method", "path", "name", "error"),
    [
        ("GET", "/nowhere/s3cret", "GET", None),
        ("BREW", "/me", "HTTP /me", None),
        ("GET", "/again/inner/x", "GET /again/inner/{number}", None),
        ("GET", "/fails", "GET /fails", "503"),
        ("GET", "/bug", "GET /bug", "LookupError"),
    ],
)
async def test_a_span_fails_by_status_or_error(
    client: httpx.AsyncClient, spans: SpanRecorder, method: str, path: str, name: str, error: str | None
) -> None:
    """Errors of the server fail a span, by the type of an unhandled one; errors of the client do not."""
    answer = await client.request(method, path)
    (found,) = spans.spans
    assert (found.name, found.failed, found.attributes.get("error.type")) == (name, error is not None, error)
    assert found.attributes["http.response.status_code"] == answer.status_code
    assert "s3cret" not in str(found)


async def test_a_broken_off_response_fails_by_its_cause(client: httpx.AsyncClient, spans: SpanRecorder) -> None:
    """A response that breaks off after its status has the type of the error that ended it."""
    with pytest.raises(Exception, match=r".+"):
        await client.get("/half")
    (found,) = spans.spans
    assert (found.failed, found.attributes["error.type"]) == (True, "LookupError")


async def test_polled_routes_are_not_recorded(client: httpx.AsyncClient, spans: SpanRecorder) -> None:
    """Routes that machines poll, such as /metrics, begin no traces."""
    assert (await client.get("/metrics", headers={"traceparent": SAMPLED})).status_code == 200
    assert spans.spans == []


async def test_logs_and_exemplars_refer_to_the_span(
    lines: Lines, client: httpx.AsyncClient, spans: SpanRecorder
) -> None:
    """The access event has the span's ids, and so has the exemplar of the metrics if the trace is sampled."""
    for traceparent in (SAMPLED, UNSAMPLED):
        await client.get("/api/outer/inner/7", headers={"traceparent": traceparent})
    (recorded,) = spans.spans
    first, second = (line for line in lines() if line["message"] == "http_request")
    assert (first["trace_id"], first["span_id"]) == (TRACE_ID, recorded.span_id)
    assert second["trace_id"] == TRACE_ID
    assert second["span_id"] not in {"b" * 16, recorded.span_id}


async def test_an_exemplar_refers_to_the_span(client: httpx.AsyncClient, spans: SpanRecorder) -> None:
    """The exemplar of a request has the ids of its own span, by which a dashboard finds it."""
    await client.get("/api/outer/inner/7", headers={"traceparent": SAMPLED})
    (recorded,) = spans.spans
    accept = "application/openmetrics-text; version=1.0.0"
    metrics = (await client.get("/metrics", headers={"Accept": accept})).text
    assert f'span_id="{recorded.span_id}"' in metrics

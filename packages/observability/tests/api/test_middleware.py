"""The observing middleware: correlation id, access event, and metrics by route template."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated

import httpx
import pytest
import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tequipy_observability import bind_context, current_context
from tequipy_observability.api import ObservabilityMiddleware, wire_observability
from tequipy_observability.api.middleware import ResponseInterruptedError
from tequipy_observability.metrics.registry import build_registry
from tequipy_observability.wiring import Observability, ObservabilitySettings

Lines = Callable[[], list[dict[str, object]]]


async def known_user_async() -> None:
    bind_context(user_id="ada")


def build_app(settings: ObservabilitySettings | None = None) -> FastAPI:
    registry = build_registry(name="test", version="1", environment="test")
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    app = FastAPI(middleware=[Middleware(ObservabilityMiddleware, registry)])

    @inner.get("/{number}")
    async def read(number: int) -> int:
        return number

    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    app.include_router(inner, prefix="/again")

    @app.get("/me")
    async def me(_: Annotated[None, Depends(known_user_async)]) -> str | None:
        return current_context().user_id

    @app.get("/bug")
    async def bug() -> None:
        raise LookupError("of the handler")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("of the stream")

        return StreamingResponse(pieces())

    @app.get("/fails")
    async def fail() -> None:
        raise HTTPException(503)

    wire_observability(app, Observability(settings or ObservabilitySettings(), registry))
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app()), base_url="http://test") as client:
        yield client


async def test_a_good_correlation_id_comes_back_on_every_answer(client: httpx.AsyncClient) -> None:
    """A valid id of the request is on its response, whatever the status; an invalid one is replaced."""
    for path in ("/api/outer/inner/1", "/nowhere", "/api/outer/inner/x", "/fails"):
        answer = await client.get(path, headers={"X-Correlation-ID": "abc.1"})
        assert answer.headers["X-Correlation-ID"] == "abc.1", path
    answer = await client.get("/nowhere", headers={"X-Correlation-ID": "a b"})
    assert len(answer.headers["X-Correlation-ID"]) == 32


ID = {"X-Correlation-ID": "abc.1"}


async def test_an_unhandled_error_carries_its_correlation_id(lines: Lines, client: httpx.AsyncClient) -> None:
    """Without any other error handling, the id is on the 500 and on the single log line with the traceback."""
    answer = await client.get("/bug", headers=ID)
    assert (answer.status_code, answer.headers["X-Correlation-ID"]) == (500, "abc.1")
    failed, access = lines()
    assert (failed["message"], failed["level"], failed["correlation_id"]) == ("request_failed", "ERROR", "abc.1")
    assert str(failed["exception"]).endswith("LookupError: of the handler\n")
    assert (access["message"], access["status"], access["correlation_id"]) == ("http_request", 500, "abc.1")


async def test_an_error_of_a_middleware_carries_its_correlation_id(lines: Lines) -> None:
    """The id is also on the 500 of another middleware."""

    def broken(_: ASGIApp) -> ASGIApp:
        async def fail(*_: object) -> None:
            raise LookupError("of the middleware")

        return fail

    app = build_app()
    app.user_middleware.append(Middleware(broken))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/me", headers=ID)
    assert (answer.status_code, answer.headers["X-Correlation-ID"]) == (500, "abc.1")
    assert [(line["message"], line["correlation_id"]) for line in lines()] == [
        ("request_failed", "abc.1"),
        ("http_request", "abc.1"),
    ]


async def test_the_apps_own_error_handler_is_called(lines: Lines) -> None:
    """A handler that the app registers for `Exception` makes the response, which carries its correlation id."""

    async def handle(_: Request, error: Exception) -> Response:
        return Response(str(error), status_code=500)

    app = build_app()
    app.add_exception_handler(Exception, handle)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/bug", headers=ID)
    assert (answer.text, answer.headers["X-Correlation-ID"]) == ("of the handler", "abc.1")
    assert [line["message"] for line in lines()] == ["request_failed", "http_request"]


async def test_an_error_of_the_apps_own_error_handler_is_a_plain_500(lines: Lines) -> None:
    """If the handler for `Exception` fails too, the response is a plain 500, and both errors are logged."""

    async def handle(_: Request, __: Exception) -> Response:
        raise LookupError("of the error handler")

    app = build_app()
    app.add_exception_handler(Exception, handle)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/bug", headers=ID)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["X-Correlation-ID"] == "abc.1"
    assert [line["message"] for line in lines()] == ["request_failed", "request_failed", "http_request"]


async def test_an_interrupted_response_is_logged_with_its_id(lines: Lines, client: httpx.AsyncClient) -> None:
    """The server gets an exception with the correlation id only, so the traceback is logged once."""
    with pytest.raises(ResponseInterruptedError, match=r"abc\.1") as raised:
        await client.get("/half", headers=ID)
    assert raised.value.__suppress_context__
    failed, _ = lines()
    assert (failed["message"], failed["correlation_id"]) == ("request_failed", "abc.1")
    assert str(failed["exception"]).endswith("LookupError: of the stream\n")


async def test_a_request_is_one_access_event(client: httpx.AsyncClient) -> None:
    """A request logs one event with its template and bound fields; the level depends on the status."""
    with capture_logs() as events:
        await client.get("/me")
        await client.get("/nowhere")
        await client.get("/fails")
    assert [(event["event"], event["log_level"], event["route"], event["status"]) for event in events] == [
        ("http_request", "info", "/me", 200),
        ("http_request", "warning", "__unmatched__", 404),
        ("http_request", "error", "/fails", 503),
    ]


@pytest.mark.parametrize(
    ("sent", "logged"),
    [("short", "short"), ("a " * 300, ("a " * 256)[:-1]), ("a redis://u:" + "p" * 600 + "@x", "a"), ("x" * 600, "")],
)
async def test_a_long_user_agent_is_cut_between_words(client: httpx.AsyncClient, sent: str, logged: str) -> None:
    """The user agent is cut off between words, since redaction would not recognise a part of a secret."""
    with capture_logs() as events:
        await client.get("/me", headers={"User-Agent": sent})
    assert [event["user_agent"] for event in events] == [logged]


async def test_the_access_event_contains_bound_fields(client: httpx.AsyncClient) -> None:
    """A user id that a dependency binds is in the access event."""
    seen = []

    def note(*_: object) -> EventDict:
        seen.append(current_context().user_id)
        raise structlog.DropEvent

    structlog.configure(processors=[note])
    try:
        assert (await client.get("/me")).json() == "ada"
    finally:
        structlog.reset_defaults()
    assert seen == ["ada"]


async def test_requests_are_counted_by_their_template(client: httpx.AsyncClient) -> None:
    """The label is the template with all its prefixes, also of a router that is included twice."""
    for path in ("/api/outer/inner/1", "/api/outer/inner/2", "/again/inner/3", "/again/inner/4/"):
        await client.get(path, follow_redirects=False)
    text = (await client.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/outer/inner/{number}",status="200"} 2.0' in text
    assert 'http_requests_total{method="GET",route="/again/inner/{number}",status="200"} 1.0' in text
    assert 'http_request_duration_seconds_count{method="GET",route="/api/outer/inner/{number}"} 2.0' in text
    assert 'app_info{environment="test",service="test",version="1"} 1.0' in text


async def test_random_requests_add_no_series(client: httpx.AsyncClient) -> None:
    """Any number of unknown paths, slash redirects and methods adds only a few series to /metrics."""
    before = (await client.get("/metrics")).text.splitlines()
    for number in range(100):
        assert (await client.get(f"/nowhere/{number}")).status_code == 404
        assert (await client.get(f"/api/outer/inner/{number}/", follow_redirects=False)).status_code == 307
        await client.request(f"METHOD{number}", f"/nowhere/{number}")
        await client.request(f"METHOD{number}", f"/api/outer/inner/{number}")
    after = (await client.get("/metrics")).text.splitlines()
    added = {line.rpartition(" ")[0] for line in after} - {line.rpartition(" ")[0] for line in before}
    # The first scrape appears in the second one.
    assert len([series for series in added if 'route="/metrics"' not in series]) <= 5, added


async def test_an_unknown_method_is_counted_as_other(client: httpx.AsyncClient) -> None:
    """A request with an unknown method is counted as unmatched, whatever its path."""
    await client.request("INVENTED", "/me")
    text = (await client.get("/metrics")).text
    assert 'http_requests_total{method="_OTHER",route="__unmatched__",status="405"} 1.0' in text
    assert "INVENTED" not in text


async def test_metrics_may_ask_for_a_token() -> None:
    """With a token configured, /metrics requires it as a bearer token."""
    app = build_app(ObservabilitySettings(metrics_token=SecretStr("s3cret")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer s3cret"})).status_code == 200


@pytest.mark.parametrize("first", ["Bearer s3cret", "Bearer wrong"])
async def test_metrics_read_one_token(first: str) -> None:
    """Two `Authorization` headers give 400, even if one of them is valid."""
    app = build_app(ObservabilitySettings(metrics_token=SecretStr("s3cret")))
    headers = [("Authorization", first), ("Authorization", "Bearer s3cret")]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 400


async def test_guesses_of_the_metrics_token_are_limited() -> None:
    """After ten wrong tokens in a minute, /metrics responds 429 with `Retry-After`, even to the right token."""
    app = build_app(ObservabilitySettings(metrics_token=SecretStr("s3cret")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        wrong, right = ({"Authorization": f"Bearer {token}"} for token in ("guess", "s3cret"))
        assert [(await client.get("/metrics", headers=wrong)).status_code for _ in range(10)] == [401] * 10
        for headers in (wrong, right):
            answer = await client.get("/metrics", headers=headers)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")


async def test_metrics_may_have_a_port_of_their_own(free_port: Callable[[], int]) -> None:
    """With a port configured, the app has no /metrics, and the port serves them while the context is open."""
    port = free_port()
    settings, registry = ObservabilitySettings(metrics_port=port), CollectorRegistry()
    app = FastAPI(middleware=[Middleware(ObservabilityMiddleware, registry)])
    async with Observability(settings, registry) as observability:
        wire_observability(app, observability)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.get("/metrics")).status_code == 404
            await client.get("/nowhere")
        async with httpx.AsyncClient() as client:
            assert "http_requests_total" in (await client.get(f"http://127.0.0.1:{port}/metrics")).text


async def test_openmetrics_on_request(client: httpx.AsyncClient) -> None:
    """A scraper that accepts OpenMetrics gets it."""
    answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


SAMPLED, UNSAMPLED = (f"00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("01", "00"))


@pytest.mark.parametrize(
    ("headers", "labels"),
    [
        ({"X-Correlation-ID": "abc"}, {"correlation_id": "abc"}),
        (
            {"X-Correlation-ID": "abc", "traceparent": SAMPLED},
            {"correlation_id": "abc", "trace_id": "a" * 32, "span_id": "b" * 16},
        ),
        ({"X-Correlation-ID": "abc", "traceparent": UNSAMPLED}, {"correlation_id": "abc"}),
        ({"X-Correlation-ID": "c" * 128, "traceparent": SAMPLED}, {"trace_id": "a" * 32, "span_id": "b" * 16}),
        ({"X-Correlation-ID": "c" * 128}, None),
    ],
    ids=["correlation", "sampled", "not sampled", "too long", "nothing fits"],
)
async def test_an_exemplar_names_a_request(
    client: httpx.AsyncClient, headers: dict[str, str], labels: dict[str, str] | None
) -> None:
    """In OpenMetrics each bucket refers to its last request, within the 128 characters of an exemplar."""
    await client.get("/me", headers=headers)
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = (await client.get("/metrics", headers=accept)).text
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # -- it parses a text
    found = [
        sample.exemplar.labels
        for family in families
        if family.name == "http_request_duration_seconds"
        for sample in family.samples
        if sample.exemplar and sample.labels["route"] == "/me"
    ]
    assert found == ([labels] if labels else [])


async def test_the_plain_format_has_no_exemplars(client: httpx.AsyncClient) -> None:
    """A scraper that does not accept OpenMetrics gets the plain text format without exemplars."""
    await client.get("/me")
    assert " # {" not in (await client.get("/metrics")).text


def test_an_app_is_wired_once() -> None:
    """A second middleware on the same registry, which would count each request twice, is refused."""
    registry, app = CollectorRegistry(), PlainTextResponse("")
    ObservabilityMiddleware(app, registry)
    with pytest.raises(ValueError, match="http_requests"):
        ObservabilityMiddleware(app, registry)


def test_the_middleware_must_be_listed() -> None:
    """Wiring an app without the middleware, whose requests would not be observed, is refused with its name."""
    with pytest.raises(RuntimeError, match="ObservabilityMiddleware"):
        wire_observability(FastAPI(), Observability(ObservabilitySettings(), CollectorRegistry()))

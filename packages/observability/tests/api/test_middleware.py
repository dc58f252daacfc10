"""The observing middleware: correlation id, access event, and metrics by route template."""

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tequipy_observability import current_context
from tequipy_observability.api import ObserveRequests, wire_observability
from tequipy_observability.api.observe import ResponseInterruptedError
from tequipy_observability.wiring import Observability, ObservabilitySettings

from ..log_lines import Lines
from .observed_app import build_app


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
    """A request logs one event with its template and bound fields; only an error of ours (5xx) is above INFO."""
    with capture_logs() as events:
        await client.get("/me")
        await client.get("/nowhere")
        await client.get("/fails")
    assert [(event["event"], event["log_level"], event["route"], event["status"]) for event in events] == [
        ("http_request", "info", "/me", 200),
        ("http_request", "info", "__unmatched__", 404),
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


def test_an_app_is_wired_once() -> None:
    """A second stage on the same registry, which would count each request twice, is refused."""
    registry = CollectorRegistry()
    ObserveRequests(registry)
    with pytest.raises(ValueError, match="http_requests"):
        ObserveRequests(registry)


def test_the_stage_must_be_listed() -> None:
    """Wiring an app without the stage, whose requests would not be observed, is refused with its name."""
    with pytest.raises(RuntimeError, match="ObserveRequests"):
        wire_observability(FastAPI(), Observability(ObservabilitySettings(), CollectorRegistry()))

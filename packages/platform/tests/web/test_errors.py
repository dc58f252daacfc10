"""Every error response is a problem document, whatever failed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Message

from tequipy_observability import RequestContext, request_context
from tequipy_platform import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from tequipy_platform.web import CatchErrors, Pipeline, problem_responses, wire_errors

from .example_app import SECRET, client, make_app, problem


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Malformed, 400, "malformed"),
        (Unauthenticated, 401, "unauthenticated"),
        (Forbidden, 403, "forbidden"),
        (NotFound, 404, "not_found"),
        (Conflict, 409, "conflict"),
        (Invalid, 422, "validation_failed"),
        (lambda: TooMany(retry_after=3), 429, "rate_limited"),
        (Unavailable, 503, "unavailable"),
        (TimeoutError, 503, "unavailable"),
        (DomainError, 500, "internal_error"),
        (lambda: HTTPException(418), 418, "im_a_teapot"),
    ],
)
async def test_every_kind_has_its_status(error: Callable[[], Exception], status: int, code: str) -> None:
    """A domain error gives its kind's status and its own code; a timeout counts as 503."""
    async with client(make_app(error)) as http:
        response = await http.get("/fail")
    assert (response.status_code, problem(response)["code"]) == (status, code)


async def test_members_extend_the_document_and_overwrite_nothing() -> None:
    """An error's members are in the document, but cannot replace standard members."""
    async with client(make_app(lambda: Invalid(reasons=["too_short"], status=200, type="x"))) as http:
        document = problem(await http.get("/fail"))
    assert document["reasons"] == ["too_short"]


@pytest.mark.parametrize(("retry_after", "header"), [(0, "1"), (0.2, "1"), (2.1, "3"), (60, "60")])
async def test_retry_after_is_whole_seconds_and_never_zero(retry_after: float, header: str) -> None:
    """429 and 503 carry `Retry-After` in whole seconds, at least 1."""
    for kind in (TooMany, Unavailable):
        async with client(make_app(lambda kind=kind: kind(retry_after=retry_after))) as http:  # type: ignore[misc]
            assert (await http.get("/fail")).headers["retry-after"] == header


@pytest.mark.parametrize(
    ("code", "challenge"),
    [
        ("unauthenticated", "Bearer"),
        ("invalid_credentials", "Bearer"),
        ("invalid_token", 'Bearer error="invalid_token"'),
    ],
)
async def test_challenge_names_the_error_of_a_bad_token_only(code: str, challenge: str) -> None:
    """`WWW-Authenticate` has an `error` only if a token was sent (RFC 6750)."""
    async with client(make_app(lambda: Unauthenticated(code=code))) as http:
        assert (await http.get("/fail")).headers["www-authenticate"] == challenge


async def test_a_bug_is_not_shown_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A bug gives a 500 without its cause, with security headers, and one log record with its traceback."""
    with request_context(RequestContext(correlation_id="abc")), caplog.at_level(logging.WARNING):
        async with client(make_app(lambda: RuntimeError(SECRET))) as http:
            response = await http.get("/fail")
    document = problem(response)
    assert (document["code"], document["correlation_id"]) == ("internal_error", "abc")
    assert SECRET not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


async def test_an_error_in_the_middle_of_a_response_closes_the_connection() -> None:
    """After the response has started, an error reaches the server, which closes the connection."""
    app = make_app()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"begun"
            raise RuntimeError("broken")

        return StreamingResponse(chunks())

    async with client(app) as http:
        with pytest.raises(RuntimeError, match="broken"):
            await http.get("/stream")


async def test_a_request_cancelled_at_shutdown_gets_503() -> None:
    """A request that the server cancels at shutdown gets 503, and the cancellation continues."""
    sent: list[Message] = []

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    task = asyncio.ensure_future(Pipeline(hang, [CatchErrors()])({"type": "http"}, receive, send))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message.get("status") for message in sent] == [503, None]


def test_the_middleware_must_be_listed() -> None:
    """Wiring an app without the middleware, which handles errors and bodies, is refused with its names."""
    with pytest.raises(RuntimeError, match="LimitBodies, CatchErrors"):
        wire_errors(FastAPI())


async def test_unknown_routes_are_problems_too() -> None:
    """404 and 405 of the framework are problem documents, and 405 names the allowed methods."""
    async with client(make_app()) as http:
        missing, wrong_method = await http.get("/nowhere"), await http.delete("/echo")
    assert (missing.status_code, problem(missing)["code"]) == (404, "not_found")
    assert (wrong_method.status_code, problem(wrong_method)["code"]) == (405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "POST"


async def test_allow_lists_the_methods_of_all_routes_at_a_path() -> None:
    """`Allow` lists the methods of all routes at the path, also below a prefix."""
    app, router = make_app(), APIRouter()

    @router.get("/me")
    @router.patch("/me")
    async def me() -> None: ...

    app.include_router(router, prefix="/auth")
    async with client(app) as http:
        allowed = [(await http.put(path)).headers["allow"] for path in ("/things/1", "/auth/me")]
    assert allowed == ["DELETE, GET", "GET, PATCH"]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/echo/", "../echo"),
        ("/small/echo/?a=1", "../echo?a=1"),
        ("/with/slash", "./slash/"),
    ],
)
@pytest.mark.parametrize("host", ["test", "evil.example", "evil.example:1/x?"])
async def test_redirects_of_slashes_are_relative(path: str, location: str, host: str) -> None:
    """The redirect is relative, so a forged `Host` cannot send a browser to another host."""
    app = make_app()
    app.add_api_route("/with/slash/", lambda: None)
    async with client(app) as http:
        answer = await http.get(path, headers={"host": host})
    assert (answer.status_code, answer.headers["location"]) == (307, location)


async def test_errors_are_not_cacheable() -> None:
    """Every problem document is sent with `no-store`, also for unknown routes."""
    async with client(make_app()) as http:
        answers = [await http.get("/nowhere"), await http.get("/fail"), await http.get("/things/z")]
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store"] * 3


async def test_parameters_are_validated_alike() -> None:
    """Invalid path and query parameters give the same response format as bodies."""
    async with client(make_app()) as http:
        response = await http.get("/things/z?limit=0")
    assert {error["pointer"] for error in problem(response)["errors"]} == {"/thing_id", "/limit"}
    assert "`z`" not in response.text  # pydantic's own message about a UUID would quote it


def test_the_document_has_no_validation_error_of_fastapi() -> None:
    """A route with a parameter documents no 422 that the app never sends; one that it documents itself stays."""
    app = make_app()

    @app.get("/documented/{name}", responses=problem_responses(Invalid))
    async def documented(name: str) -> str:
        return name

    document = app.openapi()
    assert "422" not in document["paths"]["/things/{thing_id}"]["delete"]["responses"]
    assert list(document["paths"]["/documented/{name}"]["get"]["responses"]["422"]["content"]) == [
        "application/problem+json"
    ]
    assert document["components"]["schemas"].keys().isdisjoint({"HTTPValidationError", "ValidationError"})
    assert app.openapi() is document

"""Every error response is a problem document, whatever failed."""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
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
from tequipy_platform.web import (
    BodyLimits,
    CatchErrors,
    LimitBodies,
    SecurityHeaders,
    StrictModel,
    wire_body_limit,
    wire_errors,
)

SECRET = "correct horse battery staple"


class Body(StrictModel):
    email: str
    password: SecretStr = SecretStr("")
    day: date | None = None
    ratio: float = 0.5
    tags: tuple[str, ...] = ()
    labels: dict[str, int] | None = None


def object_of(members: int, *more: str) -> str:
    """Return a JSON object with `members` members and the given others after them."""
    return "{" + ",".join([*(f'"{number}":0' for number in range(members)), *more]) + "}"


def make_app(failure: Callable[[], Exception] = RuntimeError) -> FastAPI:
    app = FastAPI(
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(LimitBodies, BodyLimits(size=100_000)),
            Middleware(CatchErrors),
        ]
    )
    wire_errors(app)

    @app.get("/fail")
    async def fail() -> None:
        raise failure()

    @app.post("/echo")
    async def echo(body: Body) -> dict[str, str]:
        return {"email": body.email}

    @app.post("/small/echo")
    async def small_echo(body: Body) -> dict[str, str]:
        return {"email": body.email}

    wire_body_limit(app, 64, small_echo)

    @app.delete("/things/{thing_id}")
    async def remove(thing_id: UUID) -> None:
        raise NotFound(str(thing_id))

    @app.get("/things/{thing_id}")
    async def thing(thing_id: UUID, limit: Annotated[int, Query(ge=1)] = 1) -> dict[str, str]:
        return {"id": f"{thing_id} {limit}"}

    return app


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def post(body: bytes, path: str = "/echo", content_type: str = "application/json") -> httpx.Response:
    async with client(make_app()) as http:
        return await http.post(path, content=body, headers={"content-type": content_type})


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == response.status_code
    assert document["type"] == f"urn:tequipy:problem:{document['code']}"
    assert {"title", "detail", "correlation_id"} <= document.keys()
    return document


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

    task = asyncio.ensure_future(CatchErrors(hang)({"type": "http"}, receive, send))
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


async def test_validation_names_fields_and_never_echoes() -> None:
    """A 422 points at each field by JSON pointer and repeats nothing of the input."""
    body = {"email": 5, "password": [SECRET], "day": SECRET, "tags": ["a", 7], "is_admin": SECRET, SECRET: 1}
    response = await post(json.dumps(body).encode())
    document = problem(response)
    assert (response.status_code, document["code"]) == (422, "validation_failed")
    assert {(error["pointer"], error["code"]) for error in document["errors"]} == {
        ("/email", "string_type"),
        ("/password", "string_type"),
        ("/day", "date_from_datetime_parsing"),
        ("/tags/1", "string_type"),
        ("", "extra_forbidden"),  # points at the object, once, because an unknown name may be a secret
    }
    assert SECRET not in response.text


@pytest.mark.parametrize("value", ["1", '"\\u0000"', '{"\\u0000": 1}', '{"SECRET2": "\\ud800"}', "[{}]"])
async def test_the_name_of_an_unknown_field_is_repeated_nowhere(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Response and log point at the object that holds the unknown field, never at its name, which may be a secret."""
    with caplog.at_level(logging.DEBUG):
        response = await post(f'{{"email": "a", "SECRET1": {value}}}'.encode())
    assert response.status_code == 422
    assert {error["pointer"] for error in problem(response)["errors"]} == {""}
    assert "SECRET" not in response.text + caplog.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (object_of(1_000), 422),
        (object_of(1_001), 400),
        (object_of(6_000), 400),
        (f"[{','.join([object_of(400)] * 5)}]", 422),  # no single object is too large
        (f'{{"a": [{{"b": {object_of(1_001)}}}]}}', 400),
        (object_of(999, f'"last": {object_of(3)}'), 422),
        (object_of(999, f'"o": {object_of(3)}, "p": 1'), 400),
        (object_of(990, '"colons": "' + ":" * 5_000 + '"'), 422),
    ],
    ids=["1,000", "1,001", "6,000", "many small", "nested", "around", "around too many", "colons in a string"],
)
async def test_an_object_has_a_thousand_members_at_most(body: str, status: int) -> None:
    """An object with more than 1,000 members is refused before validation, wherever it is in the body."""
    response = await post(body.encode())
    assert (response.status_code, problem(response)["code"]) == (
        status,
        {400: "malformed_body", 422: "validation_failed"}[status],
    )


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


async def test_the_number_of_errors_is_bounded() -> None:
    """A body with ten thousand wrong items gives fifty faults."""
    response = await post(json.dumps({"email": "a", "tags": list(range(10_000))}).encode())
    assert len(problem(response)["errors"]) == 50


DIGITS = b"1" * 5_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 422, id="nothing"),
        pytest.param(b"{", 400, id="cut off"),
        pytest.param(b'"' + b'\\"' * 30_000, 400, id="string without end"),
        pytest.param(b"null", 422, id="null"),
        pytest.param(b'{"email": NaN}', 400, id="NaN"),
        pytest.param(b'{"email": "a", "ratio": -Infinity}', 400, id="Infinity"),
        pytest.param(b'{"email": "a", "ratio": 1e999}', 422, id="float overflow"),
        pytest.param(b'{"email": "NaN [[[["}', 200, id="NaN within a string"),
        pytest.param(b'{"email": ' + DIGITS + b"}", 400, id="5,000 digits"),
        pytest.param(b'{"email": "a", "ratio": 1' + b"0" * 5_000 + b"}", 400, id="5,000 digits for a number"),
        pytest.param(b"[" * 50_000, 400, id="deep, cut off"),
        pytest.param(b'{"email": "a", "tags": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, id="deep"),
        pytest.param(b'{"a":' * 15_000 + b"1" + b"}" * 15_000, 400, id="deep objects"),
        pytest.param(b'{"email": "\xff\xfe"}', 400, id="invalid UTF-8"),
        pytest.param('{"email": "a"}'.encode("utf-16"), 400, id="UTF-16"),
        pytest.param('{"email": "a"}'.encode("utf-16-be"), 400, id="UTF-16 without mark"),
        pytest.param('{"email": "a"}'.encode("utf-32-le"), 400, id="UTF-32"),
        pytest.param(b'{"email": "\\u0000"}', 422, id="NUL"),
        pytest.param(b'{"email": "a\\ud800"}', 422, id="lone surrogate"),
        pytest.param(b'{"email": "a", "password": "\\u0000"}', 422, id="NUL in a secret"),
        pytest.param(b'{"email": "a", "password": "\\udfff"}', 422, id="lone surrogate in a secret"),
        pytest.param(b'{"email": "a", "\\ud800": 1}', 422, id="lone surrogate in a name"),
        pytest.param(b'{"email": "a", "labels": {"\\u0000": 1}}', 422, id="NUL in a label"),
        pytest.param(b'{"email": "a", "tags": ["\\u0000"]}', 422, id="NUL in a list"),
        pytest.param(b'{"email": "\\ud83d\\ude00"}', 200, id="a pair of surrogates"),
        pytest.param(b'{"email": "a"}', 200, id="well-formed"),
    ],
)
async def test_malformed_bodies_give_client_errors(body: bytes, status: int) -> None:
    """No JSON body causes a 5xx, and valid ones pass."""
    response = await post(body)
    assert response.status_code == status
    if status == 400:
        assert problem(response)["code"] == "malformed_body"
    elif status == 422:
        assert problem(response)["errors"]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "json"])
async def test_other_media_types_are_unsupported(content_type: str) -> None:
    """A body that is not declared as JSON gives 415."""
    response = await post(b'{"email": "a"}', content_type=content_type)
    assert (response.status_code, problem(response)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/echo", "/small/echo"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_have_a_limit(path: str, chunked: bool) -> None:
    """A body over the limit of its path gives 413, with or without Content-Length; one at the limit passes."""
    size = 64 if path.startswith("/small") else 100_000

    async def send(length: int) -> httpx.Response:
        whole = b'{"email": "' + b"a" * (length - 13) + b'"}'
        assert len(whole) == length

        async def chunks() -> Any:
            for start in range(0, length, 16):
                yield whole[start : start + 16]

        async with client(make_app()) as http:
            return await http.post(
                path, content=chunks() if chunked else whole, headers={"content-type": "application/json"}
            )

    assert (await send(size)).status_code == 200
    too_large = await send(size + 1)
    assert (too_large.status_code, problem(too_large)["code"]) == (413, "body_too_large")

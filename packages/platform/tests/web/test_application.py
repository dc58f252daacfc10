"""The app whose outermost layer is its pipeline."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tequipy_platform.web import Api, CatchErrors, LimitBodies, Pipeline, SecurityHeaders, wire_errors


class Outer:
    """A middleware that only passes on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def build(kind: type[FastAPI] = Api, outer: tuple[Middleware, ...] = (), **settings: Any) -> FastAPI:
    """Return an app with a pipeline and routes that succeed and fail."""
    stages = [SecurityHeaders(), LimitBodies(), CatchErrors()]
    app = kind(middleware=[*outer, Middleware(Pipeline, stages)], **settings)
    wire_errors(app)

    @app.get("/ok")
    async def succeed() -> dict[str, str]:
        return {}

    @app.get("/bug")
    async def fail() -> None:
        raise LookupError

    @app.get("/half")
    async def break_off() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"
            raise LookupError("of the stream")

        return StreamingResponse(pieces())

    return app


def client(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of an app whose stack has been built."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test/")


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths of the requests that pass FastAPI's outermost layer."""
    paths: list[str] = []
    call = ServerErrorMiddleware.__call__

    async def call_and_note(self: ServerErrorMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(ServerErrorMiddleware, "__call__", call_and_note)
    return paths


async def test_requests_go_to_the_pipeline_directly(passed: list[str]) -> None:
    """Once the stack is built, no request passes FastAPI's own layers, and the answers are those of FastAPI."""
    direct, usual = build(), build(FastAPI)
    async with client(direct) as http, client(usual) as other:
        for path in ("/ok", "/ok", "/bug", "/missing"):
            ours, theirs = await http.get(path), await other.get(path)
            assert (ours.status_code, ours.content, ours.headers.raw) == (
                theirs.status_code,
                theirs.content,
                theirs.headers.raw,
            )
        assert passed == ["/ok", "/ok", "/ok", "/bug", "/missing"]  # the first one of `direct`, and all of `usual`
        with pytest.raises(LookupError, match="of the stream"):
            await http.get("/half")


def mounted(app: FastAPI) -> FastAPI:
    """Return an app in which another one is mounted."""
    host = FastAPI()
    host.mount("/sub", app)
    return host


@pytest.mark.parametrize(
    "make",
    [
        lambda: build(outer=(Middleware(Outer),)),
        lambda: build(debug=True),
        lambda: build(max_body_size=1000),
    ],
    ids=["another middleware first", "debug", "a body limit of FastAPI"],
)
async def test_other_apps_pass_all_layers(make: Callable[[], FastAPI], passed: list[str]) -> None:
    """With a middleware before the pipeline, in debug mode or with FastAPI's body limit nothing is left out."""
    async with client(make()) as http:
        assert [(await http.get("/ok")).status_code for _ in range(3)] == [200] * 3
    assert passed == ["/ok"] * 3


async def test_a_mounted_app_passes_all_layers(passed: list[str]) -> None:
    """An app that is mounted in another one is served as FastAPI serves it."""
    async with client(mounted(build())) as http:
        assert [(await http.get("/sub/ok")).status_code for _ in range(3)] == [200] * 3
    assert passed == ["/sub/ok"] * 6


async def test_the_root_path_is_that_of_the_app() -> None:
    """An app with a root path puts it into the scope of each request."""
    seen: list[str] = []
    app = build()
    app.root_path = "/prefix"

    class Noting(Outer):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["root_path"])
            await super().__call__(scope, receive, send)

    app.user_middleware.append(Middleware(Noting))
    async with client(app) as http:
        for _ in range(2):
            assert (await http.get("/ok")).status_code == 200
    assert seen == ["/prefix", "/prefix"]


async def test_a_layer_that_was_added_later_is_kept(passed: list[str]) -> None:
    """A middleware that wraps the built stack, as instrumentation does, is not skipped."""
    app = build()
    async with client(app) as http:
        await http.get("/ok")
        assert app.middleware_stack is not None
        app.middleware_stack = Outer(app.middleware_stack)
        await http.get("/ok")
        await http.get("/ok")
    assert passed == ["/ok"] * 3

"""What is left to FastAPI: apps, by its version or by what has been changed; and routes, by what they need."""

import functools
import logging
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, Security, WebSocket
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from fastapi.sse import EventSourceResponse
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from tequipy_platform.web import CompiledRoutes
from tequipy_platform.web.compiled import internals

from .apps import Rewrite, get, make_app, nothing, reasons, warnings_of


async def assert_falls_back(app: FastAPI, caplog: pytest.LogCaptureFixture, served: list[str]) -> str:
    """Assert that FastAPI serves all routes, and that one warning says why; return it."""
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        assert (await get(app, "/one")).json() == 1
        assert (await get(app, "/things/7")).json() == [7, 1]
    assert served == []
    (reason,) = warnings_of(caplog)
    return reason


@pytest.mark.parametrize("version", ["0.164.9", "0.166.0", "1.0.0", "0.166.0rc1"])
async def test_all_routes_of_another_version_are_fastapis_own(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, served: list[str]
) -> None:
    """Outside of the versions that routes are compiled for, FastAPI serves all routes, and one warning says so."""
    monkeypatch.setattr(fastapi, "__version__", version)
    app = make_app()
    reason = await assert_falls_back(app, caplog, served)
    assert reason == f"FastAPI {version} is not one of the versions that routes are compiled for"
    assert set(reasons(app).values()) == {reason}


@pytest.mark.parametrize("name", [*internals._NAMES])
def test_no_route_is_compiled_without_an_internal_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If FastAPI lacks one of the names that compiled routes read, no route is compiled, and the name is told."""
    module, missing = internals._NAMES[name]
    app = make_app()
    monkeypatch.delattr(f"{module}.{missing}")
    assert set(reasons(app).values()) == {f"{module}.{missing} is missing"}


async def test_all_routes_are_fastapis_own_without_an_internal_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, served: list[str]
) -> None:
    """An app whose FastAPI lacks a name serves all routes by FastAPI, and one warning names it."""
    monkeypatch.delattr("fastapi.dependencies.models._get_cache_key")
    assert (
        await assert_falls_back(make_app(), caplog, served) == "fastapi.dependencies.models._get_cache_key is missing"
    )


async def test_all_routes_are_fastapis_own_if_another_library_has_replaced_its_functions(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, served: list[str]
) -> None:
    """A library that observes FastAPI by wrapping its functions sees all requests."""
    called = list[str]()
    solve = vars(fastapi.routing)["solve_dependencies"]

    @functools.wraps(solve)
    async def observe(**arguments: Any) -> Any:
        called.append(arguments["request"].url.path)
        return await solve(**arguments)

    monkeypatch.setattr("fastapi.routing.solve_dependencies", observe)
    reason = await assert_falls_back(make_app(), caplog, served)
    assert reason == "fastapi.routing.solve_dependencies has been replaced"
    assert called == ["/one", "/things/7"] * 2


@pytest.mark.parametrize("replaced", [f"{module}.{name}" for module, names in internals._OWN.items() for name in names])
def test_no_route_is_compiled_if_a_function_of_fastapis_way_is_replaced(
    replaced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each function and method that a request passes through in FastAPI may be observed by another library."""
    app = make_app()
    original = pkgutil.resolve_name(replaced)
    monkeypatch.setattr(replaced, wrapped(original))
    assert set(reasons(app).values()) == {f"{replaced} has been replaced"}


async def test_all_routes_are_fastapis_own_behind_a_middleware_that_was_listed_later(
    caplog: pytest.LogCaptureFixture, served: list[str]
) -> None:
    """A middleware within the compiled routes would be left out, so none is compiled."""
    app = make_app(last=[Middleware(CompiledRoutes), Middleware(Rewrite, {})])
    assert await assert_falls_back(app, caplog, served) == "CompiledRoutes is not the last middleware in the list"


class OwnRoute(APIRoute):
    """A route class of a feature."""


class OwnRouter(APIRouter):
    """A router that decides itself."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().handle(scope, receive, send)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls another one and looks like it, as libraries that observe do."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


async def with_yield() -> AsyncIterator[int]:
    yield 1


async def with_scopes(scopes: SecurityScopes) -> list[str]:
    return scopes.scopes


async def uncached() -> int:
    return 1


async def above(value: Annotated[int, Depends(uncached, use_cache=False)]) -> int:
    return value


async def stream() -> AsyncIterator[int]:
    yield 1


async def ticks(value: Annotated[int, Depends(with_yield)]) -> int:
    return value


async def later(tasks: BackgroundTasks) -> int:
    return len(tasks.tasks)


async def scoped(scopes: Annotated[list[str], Security(with_scopes, scopes=["a"])]) -> list[str]:
    return scopes


async def form(field: Annotated[str, Form()]) -> str:
    return field


async def socket(socket: WebSocket) -> bool:
    return socket is not None


async def few(value: Annotated[int, Depends(uncached, max_concurrency=2)]) -> int:
    return value


async def twice(one: Annotated[int, Depends(above)], other: Annotated[int, Depends(above)]) -> int:
    return one + other


@pytest.mark.parametrize(
    ("endpoint", "options", "reason"),
    [
        (ticks, {}, "a dependency with yield"),
        (later, {}, "background tasks"),
        (scoped, {}, "security scopes"),
        (few, {}, "a dependency with a limit of concurrency"),
        (socket, {}, "a WebSocket as parameter"),
        (stream, {}, "a stream"),
        (stream, {"response_class": EventSourceResponse}, "a stream"),
        (stream, {"response_class": StreamingResponse, "response_model": None}, "a response class of its own"),
        (nothing, {"response_class": HTMLResponse}, "a response class of its own"),
        (nothing, {"max_body_size": 9}, "a wrapper around the handler, such as a body limit of its own"),
        (nothing, {"route_class_override": OwnRoute}, "a route class of its own"),
        (twice, {}, "a dependency without cache below one that is used again"),
    ],
)
def test_a_route_that_is_not_simple_is_fastapis_own(
    endpoint: Callable[..., Awaitable[Any]], options: dict[str, Any], reason: str
) -> None:
    """A route that needs more than calls and one JSON document is left to FastAPI, and the report says why."""
    app = make_app()
    app.router.add_api_route("/route", endpoint, **options)
    assert reasons(app) == {"/one": None, "/things/{thing}": None, "/route": reason}


def test_routes_of_a_router_with_methods_of_its_own_are_fastapis_own() -> None:
    """A subclass of `APIRouter` that matches or serves in its own way decides about all routes of the app."""
    app = make_app()
    app.include_router(OwnRouter())
    router = OwnRouter()
    router.add_api_route("/route", nothing)
    app.include_router(router, prefix="/own")
    assert set(reasons(app).values()) == {"OwnRouter routes in its own way"}


def test_a_wrapped_handler_is_fastapis_own() -> None:
    """A route whose handler was wrapped or replaced after it had been added keeps that wrapper."""
    app = make_app()
    route: Any = app.router.routes[-1]
    handle = route.app
    route.app = wrapped(handle)
    other: Any = app.router.routes[-2]
    other.handle = other.handle
    assert reasons(app) == {
        "/one": "a route with a method of its own",
        "/things/{thing}": "a wrapper around the handler, such as a body limit of its own",
    }


def test_a_form_is_fastapis_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route with form fields is left to FastAPI."""
    monkeypatch.setattr("fastapi.dependencies.utils.ensure_multipart_is_installed", lambda: None)
    app = make_app()
    app.post("/form")(form)
    assert reasons(app)["/form"] == "a form"

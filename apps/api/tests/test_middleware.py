"""The middleware of the shipped app runs in the order in which `create_app` lists it."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware

from tequipy_api import app as app_module
from tequipy_observability.api import ObservabilityMiddleware

ROOT = Path(__file__).parents[3]
ORDER = [
    "ObservabilityMiddleware",
    "CloseConnections",
    "SecurityHeaders",
    "NoStore",
    "Cors",
    "LimitRates",
    "LimitBodies",
    "CatchErrors",
]
"""Outermost first, as docs/architecture.md explains."""


def listed() -> list[str]:
    """Return the classes in the list that `create_app` passes to FastAPI."""
    tree = ast.parse(inspect.getsource(app_module.create_app))
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    (middleware,) = [keyword.value for keyword in keywords if keyword.arg == "middleware"]
    assert isinstance(middleware, ast.List)
    return [ast.unparse(entry.args[0]) for entry in middleware.elts if isinstance(entry, ast.Call)]


def built(app: FastAPI) -> list[str]:
    """Return the classes of the stack that the app has built, without those that Starlette and FastAPI add."""
    stack: Any = app.middleware_stack
    found = []
    while stack is not app.router:
        found.append(type(stack))
        stack = vars(stack).get("app") or vars(stack)["_app"]
    return [each.__name__ for each in found if each.__module__.startswith("tequipy_")]


def record(monkeypatch: pytest.MonkeyPatch, app: FastAPI, ran: list[str]) -> None:
    """Let each middleware of the app note its name when a request reaches it."""

    def recording(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def call_and_note(*args: Any) -> None:
            ran.append(name)
            await call(*args)

        return call_and_note

    for middleware in (entry.cls for entry in app.user_middleware):
        assert isinstance(middleware, type)
        monkeypatch.setattr(middleware, "__call__", recording(middleware.__name__, middleware.__call__))


async def test_the_order_that_the_list_says_is_the_order_that_runs(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list in `create_app`, the app's own list, the built stack and a request have the same order."""
    ran: list[str] = []
    record(monkeypatch, app, ran)
    assert (await client.get("/api/v1/health")).status_code == 200
    assert listed() == ORDER
    assert [entry.cls.__name__ for entry in app.user_middleware if isinstance(entry.cls, type)] == ORDER
    assert built(app) == ORDER
    assert ran == ORDER


@pytest.mark.parametrize("number", range(len(ORDER)), ids=ORDER)
async def test_each_middleware_works_alone(app: FastAPI, number: int) -> None:
    """Each middleware serves requests in a foreign app that has no other one and wires nothing."""
    # The app's own registry has the metrics of this middleware already.
    observing = Middleware(ObservabilityMiddleware, CollectorRegistry())
    foreign = FastAPI(middleware=[app.user_middleware[number] if number else observing])

    @foreign.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    async with httpx.AsyncClient(transport=httpx.ASGITransport(foreign), base_url="http://test") as client:
        answer = await client.post("/echo", json={"a": 1})
        missing = await client.get("/missing")
    assert (answer.status_code, answer.json(), missing.status_code) == (200, {"a": 1}, 404)


def test_only_create_app_arranges_middleware_and_routes() -> None:
    """No package adds middleware to an app, or moves or replaces its routes, after the app has been created."""
    surgery = ("user_middleware.", "add_middleware(", "routes.insert(", "routes.pop(", "build_middleware_stack")
    sources = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("apps/*/src/**/*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(each in line for each in surgery)
    ]
    assert sources
    assert found == []

"""The stages of the shipped app run in the order in which `create_app` lists it."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_api import app as app_module
from tequipy_observability.api import Pipeline, Stage, stages_of

ROOT = Path(__file__).parents[3]
ORDER = [
    "ObserveRequests",
    "TraceRequests",
    "CloseConnections",
    "SecurityHeaders",
    "NoStore",
    "Cors",
    "LimitRates",
    "LimitBodies",
    "CatchErrors",
]
"""Outermost first, as docs/architecture.md explains."""
METHODS = ("before", "head", "failed", "after")


def listed() -> list[str]:
    """Return the classes in the list of stages in `create_app`."""
    tree = ast.parse(inspect.getsource(app_module.create_app))
    (stages,) = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "stages"
    ]
    assert isinstance(stages, ast.List)
    return [ast.unparse(entry.func) for entry in stages.elts if isinstance(entry, ast.Call)]


def built(app: FastAPI) -> list[str]:
    """Return the classes of the stack that the app has built, without those that Starlette and FastAPI add."""
    stack: Any = app.middleware_stack
    found = []
    while stack is not app.router:
        found.append(type(stack))
        stack = vars(stack).get("app") or vars(stack)["_app"]
    return [each.__name__ for each in found if each.__module__.startswith("tequipy_")]


def record(stages: list[Stage], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list in which each stage notes its class and the method that was called."""
    ran: list[str] = []

    def recording(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_note(*args: Any) -> Any:
            ran.append(name)
            return call(*args)

        return call_and_note

    for kind in map(type, stages):
        for method in METHODS:
            if getattr(kind, method) is not getattr(Stage, method):
                monkeypatch.setattr(kind, method, recording(f"{kind.__name__}.{method}", getattr(kind, method)))
    return ran


async def test_the_order_that_the_list_says_is_the_order_that_runs(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list in `create_app` and a request have the same order, and the way out is the way in reversed."""
    stages = stages_of(app)
    ran = record(stages, monkeypatch)
    assert (await client.get("/api/v1/health")).status_code == 200
    assert listed() == ORDER
    assert [type(stage).__name__ for stage in stages] == ORDER
    assert built(app) == ["Pipeline", "CompiledRoutes"]

    def having(method: str) -> list[str]:
        return [
            f"{type(stage).__name__}.{method}"
            for stage in stages
            if stage.active and getattr(type(stage), method) is not getattr(Stage, method)
        ]

    assert all(stage.active for stage in stages)
    assert ran == [*having("before"), *reversed(having("head")), *reversed(having("after"))]


@pytest.mark.parametrize("number", range(len(ORDER)), ids=ORDER)
async def test_each_stage_works_alone(app: FastAPI, number: int) -> None:
    """Each stage serves requests in a foreign app that has no other one and wires nothing."""
    foreign = FastAPI(middleware=[Middleware(Pipeline, [stages_of(app)[number]])])

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

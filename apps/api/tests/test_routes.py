"""The routes of the shipped app are compiled, and `tequipy-api routes` lists them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tequipy_api.contract import route_lines
from tequipy_observability.api import matched_route
from tequipy_platform.web import CompiledRoutes

CONTRACT = Path(__file__).parents[1] / "openapi.json"
NOT_COMPILED = {
    "GET /openapi.json": "FastAPI: not a FastAPI route",
    "HEAD /openapi.json": "FastAPI: not a FastAPI route",
    "GET /api/v1/reports/{id}/content": "FastAPI: a response class of its own",
}
"""A stored object is streamed, and the contract is a route of Starlette's; a new line here needs a reason."""


def listed() -> dict[str, str]:
    """Return what is listed about each route."""
    return {f"{method} {path}": outcome for method, path, outcome in (line.split(None, 2) for line in route_lines())}


def test_each_route_is_compiled_unless_it_has_a_reason() -> None:
    """All operations of the contract are listed, and no route lost its compiled code unnoticed."""
    paths = json.loads(CONTRACT.read_text("utf-8"))["paths"]
    operations = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert operations <= listed().keys()
    assert {route: outcome for route, outcome in listed().items() if outcome != "compiled"} == NOT_COMPILED


def test_the_command_lists_the_routes_without_settings(
    run_command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """`tequipy-api routes` needs no settings, and prints a line for each method and path."""
    result = run_command("routes", without=("TEQUIPY_ENVIRONMENT", "TEQUIPY_DATABASE__URL"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [*route_lines()]
    assert any(line.split() == ["GET", "/api/v1/auth/me", "compiled"] for line in result.stdout.splitlines())


async def test_compiled_code_serves_the_shipped_app(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for a compiled route never reaches FastAPI's router, and its route is that of metrics and guards."""
    routes = list[str]()
    serve = CompiledRoutes._serve

    async def note(self: CompiledRoutes, route: object, scope: dict[str, object], *rest: object) -> None:
        routes.append(matched_route(scope).template)
        await serve(self, route, scope, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(CompiledRoutes, "_serve", note)
    assert (await client.get("/api/v1/health")).json() == {"status": "ok"}
    assert (await client.get("/api/v1/auth/me")).status_code == 401
    assert (await client.post("/api/v1/auth/login", json={"email": 1})).status_code == 422
    assert (await client.get("/api/v1/users/12345678-1234-5678-1234-567812345678")).status_code == 401
    assert (await client.get("/api/v1/none")).status_code == 404
    assert (await client.put("/api/v1/health")).status_code == 405
    assert routes == ["/api/v1/health", "/api/v1/auth/me", "/api/v1/auth/login", "/api/v1/users/{id}"]

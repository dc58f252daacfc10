"""Apps with compiled routes, and requests to them."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import matched_route
from tequipy_platform.web import CompiledRoutes, route_reports

OFF: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def make_app(*before: Middleware, last: list[Middleware] | None = None, **options: Any) -> FastAPI:
    """Return an app with two routes, and the middleware `before` outside of the compiled routes."""
    middleware = [*before, *([Middleware(CompiledRoutes)] if last is None else last)]
    app = FastAPI(middleware=middleware, **{"telemetry": OFF, **options})

    @app.get("/one")
    async def one() -> int:
        return 1

    @app.get("/things/{thing}")
    async def thing(thing: int, request: Request) -> list[int]:
        return [thing, len(request.path_params)]

    return app


async def get(app: FastAPI, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **options)


async def converse(app: FastAPI, scope: Scope, *messages: Message) -> list[Message]:
    """Return what an app sends on a connection on which it receives these messages."""
    received, sent = [*messages], list[Message]()

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def reasons(app: FastAPI) -> dict[str, str | None]:
    """Return why FastAPI serves a route, by path; None for compiled routes."""
    documents = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
    return {report.path: report.reason for report in route_reports(app) if report.path not in documents}


class Rewrite:
    """A middleware that looks the route up, and then changes paths."""

    def __init__(self, app: ASGIApp, paths: dict[str, str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            matched_route(scope)
            scope["path"] = self._paths.get(scope["path"], scope["path"])
            scope["method"] = scope["method"].replace("FETCH", "GET")
            if scope["path"].startswith("/svc"):
                scope["root_path"] = "/svc"
        await self._app(scope, receive, send)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["reason"] for record in caplog.records if record.message == "routes_not_compiled"]


async def nothing() -> int:
    return 1

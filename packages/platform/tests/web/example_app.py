"""An app with error handling, and functions that send it requests."""

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any
from uuid import UUID

import httpx
from fastapi import FastAPI, Query
from pydantic import SecretStr
from starlette.middleware import Middleware

from tequipy_platform import NotFound
from tequipy_platform.web import (
    BodyLimits,
    CatchErrors,
    LimitBodies,
    Pipeline,
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


def make_app(failure: Callable[[], Exception] = RuntimeError) -> FastAPI:
    app = FastAPI(
        middleware=[
            Middleware(
                Pipeline,
                [
                    SecurityHeaders(),
                    LimitBodies(BodyLimits(size=100_000)),
                    CatchErrors(),
                ],
            )
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

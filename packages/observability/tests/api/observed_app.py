"""An app with the middleware under test."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from starlette.middleware import Middleware

from tequipy_observability import bind_context, current_context
from tequipy_observability.api import ObserveRequests, Pipeline, TraceRequests, wire_observability
from tequipy_observability.metrics.registry import build_registry
from tequipy_observability.wiring import Observability, ObservabilitySettings


async def known_user_async() -> None:
    bind_context(user_id="ada")


def build_app(settings: ObservabilitySettings | None = None) -> FastAPI:
    registry = build_registry(name="test", version="1", environment="test")
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    app = FastAPI(middleware=[Middleware(Pipeline, [ObserveRequests(registry), TraceRequests()])])

    @inner.get("/{number}")
    async def read(number: int) -> int:
        return number

    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    app.include_router(inner, prefix="/again")

    @app.get("/me")
    async def me(_: Annotated[None, Depends(known_user_async)]) -> str | None:
        return current_context().user_id

    @app.get("/bug")
    async def bug() -> None:
        raise LookupError("of the handler")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("of the stream")

        return StreamingResponse(pieces())

    @app.get("/fails")
    async def fail() -> None:
        raise HTTPException(503)

    wire_observability(app, Observability(settings or ObservabilitySettings(), registry))
    return app

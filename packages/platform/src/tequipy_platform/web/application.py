"""A FastAPI app whose outermost layer is its pipeline."""

from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tequipy_observability.api import Pipeline

_REPLACED: Final = frozenset(
    {
        ("starlette.middleware.errors", ServerErrorMiddleware.__name__),
        ("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware"),
        ("fastapi._body_limit", "AppBodyLimitMiddleware"),
    }
)
"""The layers that FastAPI puts around all listed middleware, by module and name, because two of them are private."""


class Api(FastAPI):
    """An app that passes each HTTP request directly to its `Pipeline`, without the layers that FastAPI puts around it.

    Their work is done by stages: `ObserveRequests` and `CatchErrors` respond to unhandled errors, `LimitBodies` limits
    bodies. FastAPI's own spans, metrics and logs are off: they would repeat those of the stages, with queries, and with
    texts of validation errors. Requests pass all layers of FastAPI if the pipeline is not the first middleware, if one
    of the layers is unknown, or if the app is mounted in another one, is in debug mode, or has a body limit of FastAPI.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 -- the many parameters of FastAPI
        super().__init__(
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False}, **settings
        )
        self._stack: ASGIApp | None = None
        self._pipeline: Pipeline | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        stack = self.middleware_stack
        if stack is not self._stack:
            self._stack, self._pipeline = stack, self._outermost_pipeline(stack)
        if self._pipeline is None or scope["type"] != "http" or "app" in scope:
            await super().__call__(scope, receive, send)
            return
        if self.root_path:
            scope["root_path"] = self.root_path
        scope["app"] = self
        await self._pipeline(scope, receive, send)

    def _outermost_pipeline(self, stack: ASGIApp | None) -> Pipeline | None:
        """Return the pipeline, if only known layers are around it; None before FastAPI has built its stack."""
        if self.debug or self.max_body_size is not None:
            return None
        layer: Any = stack
        while (type(layer).__module__, type(layer).__name__) in _REPLACED:
            layer = layer.app
        return layer if isinstance(layer, Pipeline) else None

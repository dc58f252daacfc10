"""Attaches observability to a FastAPI app."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp

from tequipy_observability.api.metrics import HttpMetrics
from tequipy_observability.api.middleware import ObservabilityMiddleware
from tequipy_observability.api.routes import polled_endpoints, route_table, wire_polled_routes


class DuplicateAuthorization(HTTPException):
    """The request has two `Authorization` headers, of which a proxy and this app could use different ones."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, "Send one Authorization header.")


class Observability(Protocol):
    """The attributes that this module uses of `configure_observability`'s result."""

    @property
    def registry(self) -> CollectorRegistry:
        """The registry for the app's metrics."""

    @property
    def metrics_port(self) -> int | None:
        """The port that serves the metrics instead of the app, or None."""

    def refuse_metrics(self, authorization: str, client: str | None) -> tuple[int, Mapping[str, str]] | None:
        """Return status and header fields of a refusal if the sender of this Authorization header may not read."""


def wire_observability(app: FastAPI, observability: Observability) -> None:
    """Add the observing middleware outside of all other middleware, whenever that is added.

    Every response carries `X-Correlation-ID`, even that of an unhandled error. Every request is logged as one
    `http_request` event and counted under the template of its route. `GET /metrics` is added unless the settings move
    the metrics to a port of their own.
    """
    metrics = HttpMetrics(observability.registry)
    build_stack = app.build_middleware_stack

    def build_observed_stack() -> ASGIApp:
        return ObservabilityMiddleware(
            build_stack(),
            metrics=metrics,
            routes=route_table(app),
            polled=polled_endpoints(app),
            logger=structlog.get_logger(logger_name="tequipy.access"),
        )

    # Not in `user_middleware`, because Starlette's ServerErrorMiddleware is outside of that: its 500 would lack the
    # correlation id, and the server would log the exception without it.
    app.build_middleware_stack = build_observed_stack  # type: ignore[method-assign]  # -- as the comment above explains
    if observability.metrics_port is None:
        _add_metrics(app, observability)


def _add_metrics(app: FastAPI, observability: Observability) -> None:
    async def metrics(request: Request) -> Response:
        authorizations = request.headers.getlist("authorization")
        if len(authorizations) > 1:
            raise DuplicateAuthorization
        client = request.client.host if request.client else None
        if refusal := observability.refuse_metrics("".join(authorizations), client):
            raise HTTPException(refusal[0], headers=refusal[1])
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        content = encode(observability.registry)
        return Response(content, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    app.add_api_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
    wire_polled_routes(app, metrics)

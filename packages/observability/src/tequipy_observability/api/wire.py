"""Attaches observability to a FastAPI app."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tequipy_observability.api.middleware import ObservabilityMiddleware
from tequipy_observability.api.routes import require_middleware, wire_polled_routes


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
    """Add `GET /metrics`, unless the settings move the metrics to a port of their own.

    `ObservabilityMiddleware` must be in the app's middleware, because it logs and counts the requests.
    """
    require_middleware(app, ObservabilityMiddleware)
    if observability.metrics_port is not None:
        return

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

"""Attaches observability to a FastAPI app."""

from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client.exposition import choose_encoder

from tequipy_observability.api.observe import ObserveRequests
from tequipy_observability.api.pipeline import require_stages
from tequipy_observability.api.routes import wire_polled_routes
from tequipy_observability.wiring import Observability


class DuplicateAuthorization(HTTPException):
    """The request has two `Authorization` headers, of which a proxy and this app could use different ones."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, "Send one Authorization header.")


def wire_observability(app: FastAPI, observability: Observability) -> None:
    """Add `GET /metrics`, unless the settings move the metrics to a port of their own.

    `ObserveRequests` must be in the app's pipeline, because it logs and counts the requests.
    """
    require_stages(app, ObserveRequests)
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

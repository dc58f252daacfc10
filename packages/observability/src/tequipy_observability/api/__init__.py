"""Observability for FastAPI apps: correlation id, access event, HTTP metrics, `GET /metrics`, and the route table."""

from tequipy_observability.api.middleware import ObservabilityMiddleware
from tequipy_observability.api.routes import (
    MatchedRoute,
    endpoints_of,
    matched_route,
    polled_endpoints,
    require_middleware,
    route_table,
    wire_polled_routes,
)
from tequipy_observability.api.wire import DuplicateAuthorization, wire_observability

__all__ = [
    "DuplicateAuthorization",
    "MatchedRoute",
    "ObservabilityMiddleware",
    "endpoints_of",
    "matched_route",
    "polled_endpoints",
    "require_middleware",
    "route_table",
    "wire_observability",
    "wire_polled_routes",
]

"""Observability for FastAPI apps: correlation id, access event, HTTP metrics, `GET /metrics`, and the route table."""

from tequipy_observability.api.middleware import ObservabilityMiddleware
from tequipy_observability.api.routes import (
    NO_ROUTE,
    MatchedRoute,
    RouteTable,
    endpoints_of,
    matched_route,
    polled_endpoints,
    require_middleware,
    route_table,
    wire_polled_routes,
)
from tequipy_observability.api.wire import DuplicateAuthorization, wire_observability

__all__ = [
    "NO_ROUTE",
    "DuplicateAuthorization",
    "MatchedRoute",
    "ObservabilityMiddleware",
    "RouteTable",
    "endpoints_of",
    "matched_route",
    "polled_endpoints",
    "require_middleware",
    "route_table",
    "wire_observability",
    "wire_polled_routes",
]

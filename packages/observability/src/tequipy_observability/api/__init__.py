"""For a FastAPI app: correlation, the access event, HTTP metrics, `GET /metrics`; and which route serves a request."""

from tequipy_observability.api.routes import (
    NO_ROUTE,
    MatchedRoute,
    RouteTable,
    endpoints_of,
    polled_endpoints,
    route_table,
    wire_polled_routes,
)
from tequipy_observability.api.wire import TwoAuthorizations, wire_observability

__all__ = [
    "NO_ROUTE",
    "MatchedRoute",
    "RouteTable",
    "TwoAuthorizations",
    "endpoints_of",
    "polled_endpoints",
    "route_table",
    "wire_observability",
    "wire_polled_routes",
]

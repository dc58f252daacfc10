"""Observability for FastAPI apps: the pipeline, the stages that observe and trace, `GET /metrics`, the route table."""

from tequipy_observability import needs_extra

with needs_extra("tequipy-observability[api]"):
    from tequipy_observability.api.observe import ObserveRequests
    from tequipy_observability.api.pipeline import (
        Exchange,
        Head,
        HeaderField,
        Pipeline,
        Stage,
        require_stages,
        stages_of,
    )
    from tequipy_observability.api.routes import (
        MatchedRoute,
        endpoints_of,
        matched_route,
        polled_endpoints,
        route_table,
        wire_polled_routes,
    )
    from tequipy_observability.api.spans import TraceRequests
    from tequipy_observability.api.wire import DuplicateAuthorization, wire_observability

__all__ = [
    "DuplicateAuthorization",
    "Exchange",
    "Head",
    "HeaderField",
    "MatchedRoute",
    "ObserveRequests",
    "Pipeline",
    "Stage",
    "TraceRequests",
    "endpoints_of",
    "matched_route",
    "polled_endpoints",
    "require_stages",
    "route_table",
    "stages_of",
    "wire_observability",
    "wire_polled_routes",
]

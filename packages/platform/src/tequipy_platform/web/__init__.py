"""HTTP support for FastAPI apps: error responses, limits, security headers, health, docs. Needs the extra `api`."""

from tequipy_observability import needs_extra

with needs_extra("tequipy-platform[api]", "fastapi_standalone_docs"):
    from tequipy_observability.api import Pipeline, Stage  # loads FastAPI

from tequipy_platform.web.application import Api
from tequipy_platform.web.compiled import CompiledRoutes, RouteReport, route_reports
from tequipy_platform.web.conditional import TAGGED_RESPONSE, IfMatch, tagged_response
from tequipy_platform.web.cookies import read_cookie
from tequipy_platform.web.docs import wire_docs
from tequipy_platform.web.downloads import OBJECT_REQUEST, object_response, object_responses
from tequipy_platform.web.errors import CatchErrors, wire_errors
from tequipy_platform.web.headers import (
    RATE_LIMIT_HEADER,
    RATE_LIMIT_POLICY_HEADER,
    REQUESTED_WITH_HEADER,
    Cors,
    NoStore,
    SecurityHeaders,
    security_headers,
    wire_no_store,
)
from tequipy_platform.web.health import CloseConnections, Readiness, wire_health
from tequipy_platform.web.idempotency import IDEMPOTENCY_PROBLEMS, IdempotencyKey
from tequipy_platform.web.limits import BodyLimits, LimitBodies, wire_body_limit
from tequipy_platform.web.openapi import document_header, extend_openapi
from tequipy_platform.web.origins import origin_refusal
from tequipy_platform.web.pages import PageBody, PageParameters
from tequipy_platform.web.problem_schemas import document_problems, problem_responses
from tequipy_platform.web.problems import (
    BODY_PROBLEMS,
    HeadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
    problem_response,
)
from tequipy_platform.web.schemas import StrictModel, UtcDatetime

__all__ = [
    "BODY_PROBLEMS",
    "IDEMPOTENCY_PROBLEMS",
    "OBJECT_REQUEST",
    "RATE_LIMIT_HEADER",
    "RATE_LIMIT_POLICY_HEADER",
    "REQUESTED_WITH_HEADER",
    "TAGGED_RESPONSE",
    "Api",
    "BodyLimits",
    "CatchErrors",
    "CloseConnections",
    "CompiledRoutes",
    "Cors",
    "HeadTooLarge",
    "IdempotencyKey",
    "IfMatch",
    "LimitBodies",
    "NoStore",
    "PageBody",
    "PageParameters",
    "Pipeline",
    "Readiness",
    "RequestTimeout",
    "RouteReport",
    "SecurityHeaders",
    "Stage",
    "StrictModel",
    "UnsupportedMediaType",
    "UtcDatetime",
    "document_header",
    "document_problems",
    "extend_openapi",
    "object_response",
    "object_responses",
    "origin_refusal",
    "problem_response",
    "problem_responses",
    "read_cookie",
    "route_reports",
    "security_headers",
    "tagged_response",
    "wire_body_limit",
    "wire_docs",
    "wire_errors",
    "wire_health",
    "wire_no_store",
]

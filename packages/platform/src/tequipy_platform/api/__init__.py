"""HTTP support for FastAPI apps: error responses, limits, security headers, health, docs. Needs the extra `api`."""

try:
    import fastapi  # noqa: F401 -- imported here, so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("tequipy_platform.api needs FastAPI: install tequipy-platform[api]") from error

from tequipy_platform.api.cookies import read_cookie
from tequipy_platform.api.docs import wire_docs
from tequipy_platform.api.errors import wire_errors
from tequipy_platform.api.headers import HeaderPolicy, security_headers, wire_headers
from tequipy_platform.api.health import wire_health
from tequipy_platform.api.limits import BodyLimits, wire_body_limit
from tequipy_platform.api.problems import (
    BODY_PROBLEMS,
    BodyTooLarge,
    HeadTooLarge,
    MalformedBody,
    MethodNotAllowed,
    RequestTimeout,
    UnsupportedMediaType,
    problem_response,
    problem_responses,
)
from tequipy_platform.api.schemas import StrictModel

__all__ = [
    "BODY_PROBLEMS",
    "BodyLimits",
    "BodyTooLarge",
    "HeadTooLarge",
    "HeaderPolicy",
    "MalformedBody",
    "MethodNotAllowed",
    "RequestTimeout",
    "StrictModel",
    "UnsupportedMediaType",
    "problem_response",
    "problem_responses",
    "read_cookie",
    "security_headers",
    "wire_body_limit",
    "wire_docs",
    "wire_errors",
    "wire_headers",
    "wire_health",
]

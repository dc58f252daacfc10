"""The OpenAPI document of an app: the functions that extend it, and what all its operations have."""

import re
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from tequipy_observability import CORRELATION_HEADER
from tequipy_platform.web.problem_schemas import name_problems, operations_of

_CORRELATION: Final = {
    "description": "The id of the request in logs and problems: that of the request, or a new one.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}
_RETRY_AFTER: Final = {
    "description": "The number of seconds to wait before the next attempt (RFC 9110, section 10.2.3).",
    "schema": {"type": "integer", "minimum": 1},
}
_AUTHENTICATE: Final = {
    "description": "The scheme `Bearer`, with `error` if a token was sent and refused (RFC 6750, section 3).",
    "schema": {"type": "string"},
}
_OF_STATUSES: Final = {
    "401": ("WWW-Authenticate", _AUTHENTICATE),
    "429": ("Retry-After", _RETRY_AFTER),
    "503": ("Retry-After", _RETRY_AFTER),
}
"""The header fields that problems of these statuses have."""


def extend_openapi(app: FastAPI, extend: Callable[[dict[str, Any]], None]) -> None:
    """Let `extend` change the OpenAPI document of `app`, after the functions that were passed earlier.

    When all have changed it, the schemas of problems become components of the document, and each operation gets a
    summary (the beginning of its description, unless the route has one), its security, and the header fields of all
    responses.
    """
    if not hasattr(app.state, "openapi_extensions"):
        app.state.openapi_extensions = []
        _extend_with(app, app.state.openapi_extensions)
    app.state.openapi_extensions.append(extend)


def document_header(document: dict[str, Any], response: dict[str, Any], name: str, header: dict[str, Any]) -> None:
    """Add a header field to a response; its definition becomes a component of the document."""
    document.setdefault("components", {}).setdefault("headers", {})[name] = header
    response.setdefault("headers", {})[name] = {"$ref": f"#/components/headers/{name}"}


def _extend_with(app: FastAPI, extensions: list[Callable[[dict[str, Any]], None]]) -> None:
    build = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = build()
            app.openapi_schema = None  # not stored if an extension raises an error
            for extend in extensions:
                extend(document)
            name_problems(document)
            for operation in operations_of(document):
                _complete(document, operation)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this


def _complete(document: dict[str, Any], operation: dict[str, Any]) -> None:
    summary, description = operation["summary"], operation.get("description")
    if description and operation["operationId"].lower().startswith(re.sub(r"\W", "_", summary.lower())):
        # FastAPI's own summary is the name of the function, with which the id begins.
        operation["summary"] = re.split(r"[;:.]\s|[;:.]$", description, maxsplit=1)[0].replace("\n", " ")
    operation.setdefault("security", [])  # no scheme: the operation is public
    operation["responses"] = dict(sorted(operation["responses"].items()))
    for status, response in operation["responses"].items():
        document_header(document, response, CORRELATION_HEADER, _CORRELATION)
        if status in _OF_STATUSES and "application/problem+json" in response.get("content", {}):
            document_header(document, response, *_OF_STATUSES[status])

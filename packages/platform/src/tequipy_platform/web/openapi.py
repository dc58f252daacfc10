"""The OpenAPI document of an app: the functions that extend it, and what all operations have."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from tequipy_platform.web.problem_schemas import name_problems, operations_of


def extend_openapi(app: FastAPI, extend: Callable[[dict[str, Any]], None]) -> None:
    """Let `extend` change the OpenAPI document of `app`, after the functions that were passed earlier.

    When all have changed it, the schemas of problems become components of the document.
    """
    if not hasattr(app.state, "openapi_extensions"):
        app.state.openapi_extensions = []
        _extend_with(app, app.state.openapi_extensions)
    app.state.openapi_extensions.append(extend)


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
                operation["responses"] = dict(sorted(operation["responses"].items()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this

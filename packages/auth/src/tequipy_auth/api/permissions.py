"""Permissions of routes: the dependency that requires one, and its entry in the OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from tequipy_auth.api.dependencies import CurrentAuth, CurrentPrincipal
from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.value_objects import Principal
from tequipy_platform import Forbidden
from tequipy_platform.web import document_problems, extend_openapi


class RequirePermission:
    """A FastAPI dependency that returns the caller, who must have a permission; raises `Forbidden` otherwise.

    `Annotated[Principal, Depends(RequirePermission("reports:read"))]` is the type of a route's parameter. With
    `fresh=True` the caller must also have authenticated within the last few minutes (`ReauthRequired`).
    """

    def __init__(self, permission: str, *, fresh: bool = False) -> None:
        self.permission = permission
        self._fresh = fresh

    async def __call__(self, auth: CurrentAuth, principal: CurrentPrincipal) -> Principal:
        """Check the caller of a request."""
        await auth.roles.require(principal, self.permission)
        if self._fresh:
            await auth.login.require_fresh(principal)
        return principal


def wire_permissions(app: FastAPI, auth: Auth) -> None:
    """Let the OpenAPI document name the permission that each route requires, and the response 403 without it.

    Building the document raises `ValueError` for a permission that no package declares.
    """
    declared = {permission.name for permission in auth.roles.permissions}

    def add_permissions(document: dict[str, Any]) -> None:
        for operation, permission in _operations(app, document):
            if permission not in declared:
                raise ValueError(f"no package declares the permission {permission!r}: pass it to build_auth")
            description = operation.get("description", "")
            operation["description"] = f"{description}\n\nRequires the permission `{permission}`.".lstrip()
            document_problems(operation, Forbidden)

    extend_openapi(app, add_permissions)


def _operations(app: FastAPI, document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the operations of the document that require a permission, with its name."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            continue
        for permission in _permissions(route.dependant):
            for method in route.methods or ():
                yield document["paths"][context.path_format][method.lower()], permission


def _permissions(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, RequirePermission):
        yield dependant.call.permission
    for dependency in dependant.dependencies:
        yield from _permissions(dependency)

"""Routes for administrators: roles and permissions."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, status

from tequipy_auth.api.administration_schemas import PermissionItem, PermissionsBody, RoleItem, RoleList, RoleName
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth
from tequipy_auth.api.permissions import RequirePermission
from tequipy_auth.domain.exceptions import (
    BuiltinRole,
    ReauthRequired,
    RoleInUse,
    UnknownPermission,
)
from tequipy_auth.domain.roles import Role
from tequipy_auth.domain.value_objects import Principal
from tequipy_platform import Forbidden, Invalid, NotFound
from tequipy_platform.web import BODY_PROBLEMS, problem_responses

router = APIRouter(prefix="/roles")

RoleWriter = Annotated[Principal, Depends(RequirePermission("roles:write", fresh=True))]
Name = Annotated[RoleName, Path()]

CHANGE_PROBLEMS: Final = (*CALLER_PROBLEMS, ReauthRequired)
"""The errors of every route that changes a role."""


@router.get(
    "",
    dependencies=[Depends(RequirePermission("users:read"))],
    responses=problem_responses(*CALLER_PROBLEMS),
)
async def list_roles(auth: CurrentAuth) -> RoleList:
    """Return all roles, and all permissions that a role may have."""
    return RoleList(
        items=[RoleItem.of(role) for role in (await auth.roles.all()).roles],
        permissions=[PermissionItem.of(permission) for permission in auth.roles.permissions],
    )


@router.put(
    "/{name}",
    responses=problem_responses(*BODY_PROBLEMS, *CHANGE_PROBLEMS, NotFound, Forbidden, BuiltinRole),
)
async def change_role(auth: CurrentAuth, writer: RoleWriter, name: Name, body: PermissionsBody) -> RoleItem:
    """Make or change a role, and return it; nobody can give it a permission that they lack."""
    try:
        role = Role(name, tuple(body.permissions))
    except ValueError as error:
        raise UnknownPermission from error
    await auth.roles.define(role, by=writer)
    return RoleItem.of(role)


@router.delete(
    "/{name}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CHANGE_PROBLEMS, Invalid, NotFound, BuiltinRole, RoleInUse),
)
async def delete_role(auth: CurrentAuth, writer: RoleWriter, name: Name) -> None:
    """Delete a role that no account and no open invitation has."""
    await auth.roles.delete(name, by=writer)

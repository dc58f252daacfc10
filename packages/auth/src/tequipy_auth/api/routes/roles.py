"""Routes for administrators: roles and permissions."""

from fastapi import APIRouter, Depends

from tequipy_auth.api.administration_schemas import PermissionItem, RoleItem, RoleList
from tequipy_auth.api.dependencies import CurrentAuth
from tequipy_auth.api.permissions import RequirePermission
from tequipy_auth.domain.exceptions import AmbiguousCredentials, InvalidAccessToken
from tequipy_platform import Unauthenticated, Unavailable
from tequipy_platform.web import problem_responses

router = APIRouter(prefix="/roles")


@router.get(
    "",
    dependencies=[Depends(RequirePermission("users:read"))],
    responses=problem_responses(AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Unavailable),
)
async def list_roles(auth: CurrentAuth) -> RoleList:
    """Return all roles, and all permissions that a role may have."""
    return RoleList(
        items=[RoleItem.of(role) for role in (await auth.roles.all()).roles],
        permissions=[PermissionItem.of(permission) for permission in auth.roles.permissions],
    )

"""Routes for administrators: accounts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from tequipy_auth.api.administration_schemas import UserItem
from tequipy_auth.api.dependencies import CurrentAuth
from tequipy_auth.api.permissions import RequirePermission
from tequipy_auth.domain.display_text import VISIBLE_PATTERN
from tequipy_auth.domain.entities import UserStatus
from tequipy_auth.domain.exceptions import AmbiguousCredentials, InvalidAccessToken
from tequipy_auth.domain.repositories import UserFilter
from tequipy_auth.domain.services.administration import state_tag
from tequipy_platform import Invalid, NotFound, Unauthenticated, Unavailable
from tequipy_platform.web import PageBody, PageParameters, problem_responses, tagged_response

router = APIRouter(prefix="/users")

READS_USERS = Depends(RequirePermission("users:read"))


@router.get(
    "",
    dependencies=[READS_USERS],
    responses=problem_responses(AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Invalid, Unavailable),
)
async def list_users(
    auth: CurrentAuth,
    page: PageParameters,
    query: Annotated[
        str | None,
        Query(
            max_length=254, pattern=VISIBLE_PATTERN, description="The beginning of the address, or a part of the name."
        ),
    ] = None,
    status: UserStatus | None = None,
) -> PageBody[UserItem]:
    """Return the accounts, the newest first."""
    return PageBody[UserItem].of(await auth.administration.users(page, UserFilter(query, status)), UserItem.of)


@router.get(
    "/{id}",
    dependencies=[READS_USERS],
    response_model=UserItem,
    responses=problem_responses(
        AmbiguousCredentials, Unauthenticated, InvalidAccessToken, NotFound, Invalid, Unavailable
    ),
)
async def get_user(request: Request, auth: CurrentAuth, user_id: Annotated[UUID, Path(alias="id")]) -> Response:
    """Return an account; its `ETag` is for `If-None-Match`, and for `If-Match` when its roles are changed."""
    user = await auth.administration.user(user_id)
    return tagged_response(request, UserItem.of(user), state_tag(user))

"""Routes for administrators: accounts."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status

from tequipy_auth.api.administration_schemas import RolesBody, UserItem, UserPage
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth, CurrentClient
from tequipy_auth.api.permissions import RequirePermission
from tequipy_auth.api.schemas import Accepted
from tequipy_auth.domain.display_text import VISIBLE_PATTERN
from tequipy_auth.domain.entities import UserStatus
from tequipy_auth.domain.exceptions import (
    LastAdmin,
    ReauthRequired,
    SelfDisable,
)
from tequipy_auth.domain.repositories import UserFilter
from tequipy_auth.domain.services.administration import state_tag
from tequipy_auth.domain.value_objects import Principal
from tequipy_platform import Forbidden, Invalid, NotFound, PreconditionFailed
from tequipy_platform.web import (
    BODY_PROBLEMS,
    TAGGED_RESPONSE,
    IfMatch,
    PageParameters,
    problem_responses,
    tagged_response,
)

router = APIRouter(prefix="/users")

READS_USERS: Final = Depends(RequirePermission("users:read"))
UserWriter = Annotated[Principal, Depends(RequirePermission("users:write", fresh=True))]

CHANGE_PROBLEMS: Final = (
    *CALLER_PROBLEMS,
    ReauthRequired,
    NotFound,
)
"""The errors of every route that changes an account."""


@router.get(
    "",
    dependencies=[READS_USERS],
    responses=problem_responses(*CALLER_PROBLEMS, Invalid),
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
    account_status: Annotated[UserStatus | None, Query(alias="status")] = None,
) -> UserPage:
    """Return the accounts, the newest first."""
    return UserPage.of(await auth.administration.users(page, UserFilter(query, account_status)), UserItem.of)


@router.get(
    "/{id:uuid}",
    dependencies=[READS_USERS],
    response_model=UserItem,
    responses=problem_responses(*CALLER_PROBLEMS, NotFound),
    openapi_extra=TAGGED_RESPONSE,
)
async def get_user(request: Request, auth: CurrentAuth, user_id: Annotated[UUID, Path(alias="id")]) -> Response:
    """Return one account; its `ETag` is for `If-None-Match`, and for `If-Match` when its roles are changed."""
    user = await auth.administration.user(user_id)
    return tagged_response(request, UserItem.of(user), state_tag(user))


@router.put(
    "/{id:uuid}/roles",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, *CHANGE_PROBLEMS, Forbidden, LastAdmin, PreconditionFailed),
)
async def set_roles(
    *,
    auth: CurrentAuth,
    writer: UserWriter,
    client: CurrentClient,
    user_id: Annotated[UUID, Path(alias="id")],
    if_match: IfMatch,
    body: RolesBody,
) -> None:
    """Replace the roles of an account; `If-Match` with its `ETag` refuses the change if it has been changed meanwhile.

    Nobody can give a permission that they lack.
    """
    await auth.administration.set_roles(writer, user_id, body.roles, client=client, if_match=if_match)


@router.post(
    "/{id:uuid}/disable",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CHANGE_PROBLEMS, LastAdmin, SelfDisable),
)
async def disable_user(
    auth: CurrentAuth, writer: UserWriter, client: CurrentClient, user_id: Annotated[UUID, Path(alias="id")]
) -> None:
    """Disable an account and end its sessions."""
    await auth.administration.disable(writer, user_id, client=client)


@router.post(
    "/{id:uuid}/enable",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CHANGE_PROBLEMS),
)
async def enable_user(
    auth: CurrentAuth, writer: UserWriter, client: CurrentClient, user_id: Annotated[UUID, Path(alias="id")]
) -> None:
    """Make a disabled account active again, or one that its owner has deleted within the last days."""
    await auth.administration.enable(writer, user_id, client=client)


@router.post(
    "/{id:uuid}/unlock",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CHANGE_PROBLEMS),
)
async def unlock_user(
    auth: CurrentAuth, writer: UserWriter, client: CurrentClient, user_id: Annotated[UUID, Path(alias="id")]
) -> None:
    """Delete the counters of failed logins of an account."""
    await auth.administration.unlock(writer, user_id, client=client)


@router.delete(
    "/{id:uuid}/sessions",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CHANGE_PROBLEMS),
)
async def end_user_sessions(
    auth: CurrentAuth, writer: UserWriter, client: CurrentClient, user_id: Annotated[UUID, Path(alias="id")]
) -> None:
    """End all sessions of an account."""
    await auth.administration.end_sessions(writer, user_id, client=client)


@router.post(
    "/{id:uuid}/password-reset",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*CHANGE_PROBLEMS),
)
async def request_password_reset(
    auth: CurrentAuth, writer: UserWriter, client: CurrentClient, user_id: Annotated[UUID, Path(alias="id")]
) -> Accepted:
    """Mail the owner of an account a link to reset the password."""
    await auth.administration.request_password_reset(writer, user_id, client=client)
    return Accepted()

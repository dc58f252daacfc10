"""Routes for administrators: invitations."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, status

from tequipy_auth.api.administration_schemas import InvitationBody, InvitationItem, InvitationPage
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth, CurrentClient
from tequipy_auth.api.permissions import RequirePermission
from tequipy_auth.api.schemas import Accepted
from tequipy_auth.domain.exceptions import ReauthRequired
from tequipy_auth.domain.value_objects import Principal
from tequipy_platform import Forbidden, Invalid, NotFound
from tequipy_platform.web import (
    BODY_PROBLEMS,
    IDEMPOTENCY_PROBLEMS,
    IdempotencyKey,
    PageParameters,
    problem_responses,
)

router = APIRouter(prefix="/users/invitations")

Inviter = Annotated[Principal, Depends(RequirePermission("users:write", fresh=True))]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*BODY_PROBLEMS, *CALLER_PROBLEMS, ReauthRequired, Forbidden, *IDEMPOTENCY_PROBLEMS),
)
async def invite(
    auth: CurrentAuth, inviter: Inviter, client: CurrentClient, key: IdempotencyKey, body: InvitationBody
) -> Accepted:
    """Mail a person a link to an account with these roles; nobody can give a permission that they lack.

    The link is valid for 7 days. An address that has an account gets a notice instead, with the same response. A
    further invitation of an address replaces the earlier one.
    """
    await auth.invitations.invite(inviter, email=body.email, roles=body.roles, client=client, request=key)
    return Accepted()


@router.get(
    "",
    dependencies=[Depends(RequirePermission("users:read"))],
    responses=problem_responses(*CALLER_PROBLEMS, Invalid),
)
async def list_invitations(auth: CurrentAuth, page: PageParameters) -> InvitationPage:
    """Return the invitations that can be accepted, the newest first."""
    return InvitationPage.of(await auth.invitations.page(page), InvitationItem.of)


@router.delete(
    "/{id:uuid}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CALLER_PROBLEMS, ReauthRequired, NotFound),
)
async def delete_invitation(
    auth: CurrentAuth, inviter: Inviter, client: CurrentClient, invitation_id: Annotated[UUID, Path(alias="id")]
) -> None:
    """Delete an invitation, whose link becomes invalid."""
    await auth.invitations.delete(inviter, invitation_id, client=client)

"""Routes for changes of an account's address."""

from fastapi import APIRouter, status

from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth, CurrentClient, FreshPrincipal
from tequipy_auth.api.schemas import Accepted, ChangeEmailBody, TokenBody
from tequipy_auth.domain.exceptions import (
    InvalidOneTimeToken,
    ReauthRequired,
)
from tequipy_platform import Unavailable
from tequipy_platform.web import BODY_PROBLEMS, problem_responses

router = APIRouter()


@router.post(
    "/email/change",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*BODY_PROBLEMS, *CALLER_PROBLEMS, ReauthRequired),
)
async def change_email(
    auth: CurrentAuth, principal: FreshPrincipal, client: CurrentClient, body: ChangeEmailBody
) -> Accepted:
    """Request a change of address; the response does not show whether the new address has an account.

    A link to the new address confirms the change within an hour. A link to the old address undoes it within seven days.
    """
    await auth.email_changes.request(principal, new_email=body.new_email, client=client)
    return Accepted()


@router.post(
    "/email/confirm",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, Unavailable),
)
async def confirm_email(auth: CurrentAuth, client: CurrentClient, body: TokenBody) -> None:
    """Change the address with the token of the link that was mailed to the new one; sessions continue."""
    await auth.email_changes.confirm(body.token.get_secret_value(), client=client)


@router.post(
    "/email/undo",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, Unavailable),
)
async def undo_email(auth: CurrentAuth, client: CurrentClient, body: TokenBody) -> None:
    """Undo a change of address, and all later ones, with the token of the link that was mailed to the old address.

    If one was confirmed, the account gets the old address back, and all its sessions end.
    """
    await auth.email_changes.undo(body.token.get_secret_value(), client=client)

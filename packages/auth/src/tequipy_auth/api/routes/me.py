"""The caller's own account."""

from fastapi import APIRouter

from tequipy_auth.api.dependencies import CurrentAuth, CurrentPrincipal
from tequipy_auth.api.schemas import Me
from tequipy_auth.domain.exceptions import InvalidAccessToken
from tequipy_platform import Unauthenticated, Unavailable
from tequipy_platform.api import problem_responses

router = APIRouter()


@router.get(
    "/me",
    responses=problem_responses(Unauthenticated, InvalidAccessToken, Unavailable),
)
async def get_me(auth: CurrentAuth, principal: CurrentPrincipal) -> Me:
    """Return the caller's own account."""
    return Me.model_validate(await auth.accounts.profile(principal.user_id))

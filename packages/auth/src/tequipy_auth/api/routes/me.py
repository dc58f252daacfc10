"""The route of the caller's own account."""

from fastapi import APIRouter

from tequipy_auth.api.dependencies import CurrentAuth, CurrentPrincipal
from tequipy_auth.api.schemas import Me, ProfileBody
from tequipy_auth.domain.exceptions import AmbiguousCredentials, InvalidAccessToken
from tequipy_platform import Unauthenticated, Unavailable
from tequipy_platform.web import BODY_PROBLEMS, problem_responses

router = APIRouter()


@router.get(
    "/me",
    responses=problem_responses(AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Unavailable),
)
async def get_me(auth: CurrentAuth, principal: CurrentPrincipal) -> Me:
    """Return the caller's own account."""
    profile = await auth.accounts.profile(principal.user_id)
    return Me.of(profile, await auth.roles.permissions_of(profile.roles))


@router.patch(
    "/me",
    responses=problem_responses(*BODY_PROBLEMS, AmbiguousCredentials, Unauthenticated, InvalidAccessToken, Unavailable),
)
async def change_me(auth: CurrentAuth, principal: CurrentPrincipal, body: ProfileBody) -> Me:
    """Change the caller's own account."""
    profile = await auth.accounts.rename(principal.user_id, body.name)
    return Me.of(profile, await auth.roles.permissions_of(profile.roles))

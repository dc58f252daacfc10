"""Proving once more who is asking."""

from fastapi import APIRouter

from tequipy_auth.api.dependencies import CurrentAuth, CurrentClient, CurrentPrincipal
from tequipy_auth.api.schemas import AccessTokenAnswer, ReauthenticateBody
from tequipy_auth.domain.exceptions import InvalidAccessToken, InvalidCredentials, LoginLocked
from tequipy_platform import Unauthenticated, Unavailable
from tequipy_platform.api import BODY_PROBLEMS, problem_responses

router = APIRouter()


@router.post(
    "/reauthenticate",
    responses=problem_responses(
        *BODY_PROBLEMS, Unauthenticated, InvalidAccessToken, InvalidCredentials, LoginLocked, Unavailable
    ),
)
async def reauthenticate(
    auth: CurrentAuth, principal: CurrentPrincipal, client: CurrentClient, body: ReauthenticateBody
) -> AccessTokenAnswer:
    """Prove once more who is asking, for what is delicate; the refresh token stays as it is."""
    token = await auth.login.reauthenticate(principal, password=body.password.get_secret_value(), client=client)
    return AccessTokenAnswer(access_token=token.value, expires_in=token.expires_in)

"""Routes for password reset, password change and reauthentication."""

from fastapi import APIRouter, Response, status

from tequipy_auth.api.contract import SETS_COOKIES
from tequipy_auth.api.cookies import set_device_cookie, set_refresh_cookie
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentAuth, CurrentClient, CurrentPrincipal
from tequipy_auth.api.schemas import (
    COOKIE,
    Accepted,
    AddressBody,
    ChangePasswordBody,
    ReauthenticateBody,
    ResetPasswordBody,
    Tokens,
)
from tequipy_auth.domain.exceptions import (
    InvalidCredentials,
    InvalidOneTimeToken,
    LoginLocked,
    WeakPassword,
)
from tequipy_platform import Unavailable
from tequipy_platform.web import BODY_PROBLEMS, problem_responses

router = APIRouter()


@router.post(
    "/password/forgot",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*BODY_PROBLEMS, Unavailable),
)
async def forgot_password(auth: CurrentAuth, client: CurrentClient, body: AddressBody) -> Accepted:
    """Request a link to reset the password; the response is the same whether the account exists or not."""
    await auth.passwords.forgot(email=body.email, client=client)
    return Accepted()


@router.post(
    "/password/reset",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, WeakPassword, Unavailable),
)
async def reset_password(auth: CurrentAuth, client: CurrentClient, body: ResetPasswordBody) -> None:
    """Set a new password with the token of the mailed link; all sessions end, and the caller is not logged in."""
    await auth.passwords.reset(
        body.token.get_secret_value(), new_password=body.new_password.get_secret_value(), client=client
    )


@router.post(
    "/password/change",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(
        *BODY_PROBLEMS,
        *CALLER_PROBLEMS,
        InvalidCredentials,
        WeakPassword,
        LoginLocked,
    ),
)
async def change_password(
    auth: CurrentAuth, principal: CurrentPrincipal, client: CurrentClient, body: ChangePasswordBody
) -> None:
    """Replace the caller's password; the caller's other sessions end, the current one continues."""
    await auth.passwords.change(
        principal,
        current_password=body.current_password.get_secret_value(),
        new_password=body.new_password.get_secret_value(),
        client=client,
    )


@router.post(
    "/reauthenticate",
    response_model_exclude_none=True,
    responses={
        status.HTTP_200_OK: {"headers": SETS_COOKIES},
        **problem_responses(*BODY_PROBLEMS, *CALLER_PROBLEMS, InvalidCredentials, LoginLocked),
    },
)
async def reauthenticate(
    *,
    response: Response,
    auth: CurrentAuth,
    principal: CurrentPrincipal,
    client: CurrentClient,
    body: ReauthenticateBody,
) -> Tokens:
    """Confirm the password before a sensitive operation; a new session replaces the current one and its tokens.

    The earlier session's refresh tokens are `refresh_superseded` for a minute, and then `session_revoked`.
    """
    pair = await auth.login.reauthenticate(principal, password=body.password.get_secret_value(), client=client)
    by_cookie = body.token_delivery == COOKIE
    if by_cookie:
        set_refresh_cookie(response, auth, pair)
        set_device_cookie(response, auth, pair)
    return Tokens.of(pair, with_refresh=not by_cookie)

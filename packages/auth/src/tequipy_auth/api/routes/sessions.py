"""Routes for login, refresh, logout and the list of sessions."""

from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response, status

from tequipy_auth.api.contract import (
    DELETES_COOKIE,
    DELETES_COOKIE_OF_ENDED,
    LOGIN_BODY,
    REFRESH_BODY,
    REFRESH_OR_NOTHING,
    ROTATES_COOKIE,
    SETS_COOKIES,
)
from tequipy_auth.api.cookies import delete_refresh_cookie, set_device_cookie, set_refresh_cookie
from tequipy_auth.api.csrf import refuse_cross_site
from tequipy_auth.api.dependencies import (
    CALLER_PROBLEMS,
    BearerToken,
    CurrentAuth,
    CurrentClient,
    CurrentPrincipal,
    CurrentRefreshCredential,
)
from tequipy_auth.api.schemas import (
    COOKIE,
    LoginBody,
    SessionList,
    TokenBody,
    Tokens,
)
from tequipy_auth.domain.exceptions import (
    AmbiguousCredentials,
    CsrfFailed,
    EmailNotVerified,
    InvalidCredentials,
    InvalidOneTimeToken,
    LoginLocked,
    RefreshExpired,
    RefreshInvalid,
    RefreshMissing,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
)
from tequipy_platform import NotFound, Unavailable
from tequipy_platform.web import BODY_PROBLEMS, problem_response, problem_responses

router = APIRouter()

REFRESH_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status.HTTP_200_OK: {"headers": ROTATES_COOKIE},
    **problem_responses(
        *BODY_PROBLEMS,
        AmbiguousCredentials,
        RefreshMissing,
        RefreshInvalid,
        RefreshExpired,
        RefreshSuperseded,
        RefreshReused,
        SessionRevoked,
        CsrfFailed,
        Unavailable,
    ),
}
REFRESH_RESPONSES[status.HTTP_401_UNAUTHORIZED]["headers"] = DELETES_COOKIE_OF_ENDED


@router.post(
    "/login",
    response_model_exclude_none=True,
    responses={
        status.HTTP_200_OK: {"headers": SETS_COOKIES},
        **problem_responses(*BODY_PROBLEMS, InvalidCredentials, CsrfFailed, EmailNotVerified, LoginLocked, Unavailable),
    },
    openapi_extra={"requestBody": LOGIN_BODY},
)
async def login(
    request: Request, response: Response, auth: CurrentAuth, client: CurrentClient, body: LoginBody
) -> Tokens:
    """Log in with address and password.

    The refresh token is delivered in a cookie, or in the body for clients without a cookie jar.
    """
    by_cookie = body.token_delivery == COOKIE
    if by_cookie:
        refuse_cross_site(request, auth)
    if body.device_token is not None:
        client = replace(client, device_mark=body.device_token.get_secret_value())
    pair = await auth.login.with_password(email=body.email, password=body.password.get_secret_value(), client=client)
    if by_cookie:
        set_refresh_cookie(response, auth, pair)
        set_device_cookie(response, auth, pair)
    return Tokens.of(pair, with_refresh=not by_cookie)


@router.post(
    "/refresh",
    response_model=Tokens,
    response_model_exclude_none=True,
    responses=REFRESH_RESPONSES,
    openapi_extra={"requestBody": REFRESH_BODY, "security": REFRESH_OR_NOTHING},
)
async def refresh(
    request: Request,
    response: Response,
    auth: CurrentAuth,
    client: CurrentClient,
    credential: CurrentRefreshCredential,
) -> Tokens | Response:
    """Rotate the refresh token and get a new access token."""
    if credential is None:
        raise RefreshMissing
    if credential.by_cookie:
        refuse_cross_site(request, auth)
    try:
        pair = await auth.sessions.refresh(credential.token, client=client)
    except (RefreshReused, SessionRevoked) as error:
        # The session has ended, so the cookie is of no further use; other errors keep the cookie.
        refusal = problem_response(error)
        if credential.by_cookie:
            delete_refresh_cookie(refusal, auth)
        return refusal
    if credential.by_cookie:
        set_refresh_cookie(response, auth, pair)
    return Tokens.of(pair, with_refresh=not credential.by_cookie)


@router.post(
    "/logout",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={
        status.HTTP_204_NO_CONTENT: {"headers": DELETES_COOKIE},
        **problem_responses(*BODY_PROBLEMS, AmbiguousCredentials, CsrfFailed, Unavailable),
    },
    # Beside the access token; logout also works without credentials.
    openapi_extra={"requestBody": REFRESH_BODY, "security": REFRESH_OR_NOTHING},
)
async def logout(
    *,
    request: Request,
    response: Response,
    auth: CurrentAuth,
    client: CurrentClient,
    access_token: BearerToken,
    credential: CurrentRefreshCredential,
) -> None:
    """End the session of each valid credential; without a valid credential nothing happens."""
    by_cookie = credential is not None and credential.by_cookie
    # Pages of other sites cannot send an Authorization header.
    if by_cookie and access_token is None:
        refuse_cross_site(request, auth)
    await auth.sessions.logout(
        refresh_token=credential.token if credential else None, access_token=access_token, client=client
    )
    if by_cookie:
        delete_refresh_cookie(response, auth)


@router.post(
    "/logout-all",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={status.HTTP_204_NO_CONTENT: {"headers": DELETES_COOKIE}, **problem_responses(*CALLER_PROBLEMS)},
)
async def logout_all(response: Response, auth: CurrentAuth, principal: CurrentPrincipal, client: CurrentClient) -> None:
    """End all sessions of the caller, on all devices."""
    await auth.sessions.logout_all(principal, client=client)
    delete_refresh_cookie(response, auth)


@router.post(
    "/logout-others",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CALLER_PROBLEMS),
)
async def logout_others(auth: CurrentAuth, principal: CurrentPrincipal, client: CurrentClient) -> None:
    """End all sessions of the caller except the current one."""
    await auth.sessions.logout_others(principal, client=client)


@router.get("/sessions", responses=problem_responses(*CALLER_PROBLEMS))
async def list_sessions(auth: CurrentAuth, principal: CurrentPrincipal) -> SessionList:
    """Return the sessions of the caller, the latest login first."""
    return SessionList.of(await auth.sessions.sessions(principal), principal)


@router.post(
    "/sessions/end",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, Unavailable),
)
async def end_session(auth: CurrentAuth, client: CurrentClient, body: TokenBody) -> None:
    """End a session with the token of the mail about its sign-in, and mail a link to reset the password."""
    await auth.sign_ins.end_session(body.token.get_secret_value(), client=client)


@router.delete(
    "/sessions/{id:uuid}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*CALLER_PROBLEMS, NotFound),
)
async def revoke_session(
    auth: CurrentAuth,
    principal: CurrentPrincipal,
    client: CurrentClient,
    session_id: Annotated[UUID, Path(alias="id")],
) -> None:
    """End one session of the caller, which may be the current one."""
    await auth.sessions.revoke(principal, session_id, client=client)

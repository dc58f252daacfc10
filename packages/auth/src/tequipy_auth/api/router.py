"""The routes of accounts and sessions: thin, for the services hold the rules."""

from fastapi import APIRouter, Depends, Request, Response, status

from tequipy_auth.api.cookies import delete_refresh_cookie, set_refresh_cookie
from tequipy_auth.api.csrf import refuse_cross_site, refuse_forms
from tequipy_auth.api.dependencies import (
    BearerToken,
    CurrentAuth,
    CurrentClient,
    CurrentPrincipal,
    CurrentRefreshCredential,
)
from tequipy_auth.api.schemas import (
    COOKIE,
    Accepted,
    JsonWebKeySet,
    LoginBody,
    Me,
    RegisterBody,
    Tokens,
    VerifyEmailBody,
)
from tequipy_auth.domain.exceptions import (
    AmbiguousCredentials,
    CsrfFailed,
    InvalidAccessToken,
    InvalidCredentials,
    InvalidOneTimeToken,
    RefreshExpired,
    RefreshInvalid,
    RefreshMissing,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
    WeakPassword,
)
from tequipy_platform import Unauthenticated, Unavailable
from tequipy_platform.api import BODY_PROBLEMS, problem_response, problem_responses

router = APIRouter(tags=["accounts and sessions"], dependencies=[Depends(refuse_forms)])
well_known = APIRouter(tags=["accounts and sessions"])

JWKS_MAX_AGE = 300
"""Seconds that others may keep the public keys; a new key is published at least this long before its first use."""


@router.post(
    "/register",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*BODY_PROBLEMS, WeakPassword, Unavailable),
)
async def register(auth: CurrentAuth, body: RegisterBody) -> Accepted:
    """Ask for an account; the answer is the same whether the address is known or not, the rest comes by mail."""
    await auth.registration.register(email=body.email, password=body.password.get_secret_value(), name=body.name)
    return Accepted()


@router.post(
    "/verify-email",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, Unavailable),
)
async def verify_email(auth: CurrentAuth, body: VerifyEmailBody) -> None:
    """Turn a registration into an account by the token of the mailed link."""
    await auth.registration.verify_email(body.token.get_secret_value())


@router.post(
    "/login",
    response_model_exclude_none=True,
    responses=problem_responses(*BODY_PROBLEMS, InvalidCredentials, CsrfFailed, Unavailable),
)
async def login(
    request: Request, response: Response, auth: CurrentAuth, client: CurrentClient, body: LoginBody
) -> Tokens:
    """Begin a session; the refresh token goes into a cookie, or into the body for clients that have no jar."""
    by_cookie = body.token_delivery == COOKIE
    if by_cookie:
        refuse_cross_site(request, auth)
    pair = await auth.sessions.login(email=body.email, password=body.password.get_secret_value(), client=client)
    if by_cookie:
        set_refresh_cookie(response, auth, pair)
    return Tokens.of(pair, with_refresh=not by_cookie)


@router.post(
    "/refresh",
    response_model=Tokens,
    response_model_exclude_none=True,
    responses=problem_responses(
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
)
async def refresh(
    request: Request, response: Response, auth: CurrentAuth, credential: CurrentRefreshCredential
) -> Tokens | Response:
    """Rotate the refresh token and get a new access token."""
    if credential is None:
        raise RefreshMissing
    if credential.by_cookie:
        refuse_cross_site(request, auth)
    try:
        pair = await auth.sessions.refresh(credential.token)
    except (RefreshReused, SessionRevoked) as error:
        # The session is known to be dead: only then the cookie is of no further use to anybody.
        answer = problem_response(error)
        if credential.by_cookie:
            delete_refresh_cookie(answer, auth)
        return answer
    if credential.by_cookie:
        set_refresh_cookie(response, auth, pair)
    return Tokens.of(pair, with_refresh=not credential.by_cookie)


@router.post(
    "/logout",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, AmbiguousCredentials, CsrfFailed, Unavailable),
    openapi_extra={"security": [{}]},  # beside the bearer token: nothing, which is a good way to be logged out
)
async def logout(
    request: Request,
    response: Response,
    auth: CurrentAuth,
    access_token: BearerToken,
    credential: CurrentRefreshCredential,
) -> None:
    """End the session of whichever credential is good; with none, or again, there is nothing to do."""
    by_cookie = credential is not None and credential.by_cookie
    if by_cookie and access_token is None:  # another site's page cannot send an Authorization header
        refuse_cross_site(request, auth)
    await auth.sessions.logout(refresh_token=credential.token if credential else None, access_token=access_token)
    if by_cookie:
        delete_refresh_cookie(response, auth)


@router.get(
    "/me",
    responses=problem_responses(Unauthenticated, InvalidAccessToken, Unavailable),
)
async def get_me(auth: CurrentAuth, principal: CurrentPrincipal) -> Me:
    """Return the caller's own account."""
    return Me.model_validate(await auth.accounts.profile(principal.user_id))


@well_known.get("/.well-known/jwks.json", responses=problem_responses(Unavailable))
async def get_jwks(response: Response, auth: CurrentAuth) -> JsonWebKeySet:
    """Return the keys that verify access tokens (RFC 7517, section 5): public members only."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE}"
    return JsonWebKeySet.model_validate(await auth.access_tokens.jwks())

"""FastAPI dependencies: auth, the authenticated caller, its credentials and its client."""

from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from tequipy_auth.api.cookies import read_device_cookie, read_refresh_cookie
from tequipy_auth.api.schemas import RefreshTokenBody
from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.display_text import without_invisible
from tequipy_auth.domain.exceptions import AmbiguousCredentials, InvalidAccessToken
from tequipy_auth.domain.value_objects import Client, Principal
from tequipy_observability import bind_context
from tequipy_platform import DomainError, Unauthenticated, Unavailable

_USER_AGENT_LENGTH: Final = 512
"""The number of characters of a `User-Agent` that are stored."""


CALLER_PROBLEMS: Final[tuple[type[DomainError], ...]] = (
    AmbiguousCredentials,
    Unauthenticated,
    InvalidAccessToken,
    Unavailable,
)
"""The errors of every route that needs a bearer token, for `problem_responses`; a permission adds 403 itself."""


class Bearer(SecurityBase):
    """The bearer scheme of the OpenAPI document; as a dependency it returns the token, or None.

    It accepts one `Authorization` header: with two, a proxy and this app could each use another one.
    """

    def __init__(self) -> None:
        self.model = HTTPBearer(bearerFormat="JWT", description="The access token of a login or refresh.")
        self.scheme_name = "AccessToken"

    async def __call__(self, request: HTTPConnection) -> str | None:
        """Return the token of the request."""
        return self.token_of(request)

    def token_of(self, request: HTTPConnection) -> str | None:
        """Return the token of the header (RFC 6750, section 2.1); raises `AmbiguousCredentials` for two headers."""
        header: bytes | None = None
        for name, value in request.scope["headers"]:
            if name == b"authorization":
                if header is not None:
                    raise AmbiguousCredentials
                header = value
        if header is None:
            return None
        scheme, _, token = header.decode("latin-1").partition(" ")
        # RFC 6750, section 2.1: the separator is a space.
        return token.strip(" ") or None if scheme.lower() == "bearer" else None


class BearerPrincipal(Bearer):
    """The same scheme; as a dependency it returns the caller. One step, because FastAPI solves each step apart."""

    async def __call__(self, request: HTTPConnection) -> Principal:  # type: ignore[override]  # -- another dependency
        """Return the caller; raises `Unauthenticated` without a token and `InvalidAccessToken` for an invalid one."""
        token = self.token_of(request)
        if token is None:
            raise Unauthenticated
        auth: Auth = request.app.state.auth
        principal = await auth.access_tokens.verify(token)
        bind_context(user_id=str(principal.user_id))
        return principal


async def get_auth(request: Request) -> Auth:
    """Return the `Auth` object that `wire_auth` attached to the app."""
    auth: Auth = request.app.state.auth
    return auth


CurrentAuth = Annotated[Auth, Depends(get_auth)]


BearerToken = Annotated[str | None, Depends(Bearer())]
"""The token of the `Authorization: Bearer` header, or None."""

CurrentPrincipal = Annotated[Principal, Depends(BearerPrincipal())]
"""The caller of a protected route: a route with a parameter of this type responds 401 to unauthenticated requests."""


async def require_fresh(auth: CurrentAuth, principal: CurrentPrincipal) -> Principal:
    """Return the caller, who must have authenticated within the last few minutes; raises `ReauthRequired` otherwise.

    It reads the session from the database, so that a reauthentication and the session's end take effect at once.
    """
    await auth.login.require_fresh(principal)
    return principal


FreshPrincipal = Annotated[Principal, Depends(require_fresh)]
"""The caller of a sensitive route: 401 `reauth_required` unless they authenticated within the last few minutes."""


async def get_client(request: Request, auth: CurrentAuth) -> Client:
    """Return the client of the request; the server has already evaluated the headers of trusted proxies."""
    user_agent = request.headers.get("user-agent", "")
    return Client(
        ip=request.client.host if request.client else None,
        user_agent=without_invisible(user_agent)[:_USER_AGENT_LENGTH] or None,
        device_mark=read_device_cookie(request, auth),
    )


CurrentClient = Annotated[Client, Depends(get_client)]


@dataclass(frozen=True, slots=True)
class RefreshCredential:
    """The refresh token of a request, and whether it came from the cookie."""

    token: str = field(repr=False)
    by_cookie: bool


async def get_refresh_credential(
    request: Request, auth: CurrentAuth, body: RefreshTokenBody | None = None
) -> RefreshCredential | None:
    """Return the refresh token from the cookie or body, or None; raises `AmbiguousCredentials` for both."""
    cookie = read_refresh_cookie(request, auth)
    sent = body.refresh_token if body else None
    if cookie is not None and sent is not None:
        raise AmbiguousCredentials
    if sent is not None:
        return RefreshCredential(sent.get_secret_value(), by_cookie=False)
    return RefreshCredential(cookie, by_cookie=True) if cookie is not None else None


CurrentRefreshCredential = Annotated[RefreshCredential | None, Depends(get_refresh_credential)]

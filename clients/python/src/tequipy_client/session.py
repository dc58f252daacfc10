"""A session of one account: login, requests with its access token, refresh, logout."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

import httpx

from tequipy_client.backoff import Backoff, BackoffTransport
from tequipy_client.contract.api import accounts_and_sessions as accounts
from tequipy_client.contract.models import LoginBody, ReauthenticateBody, RefreshTokenBody, Tokens
from tequipy_client.contract.types import UNSET
from tequipy_client.problems import Problem, SessionEnded, Unauthenticated, problem_of

DELIVERY: Final = "body"
REFUSED_TOKEN = frozenset({"invalid_token", "unauthenticated"})
"""Codes of 401 that say that there is no good access token; the others concern what the request contains."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What continues a session in another process; keep it as safe as a password."""

    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    device_token: str | None = field(default=None, repr=False)
    """Marks this client at the next login, also after a logout: failures of other clients do not lock it out."""


class Session:
    """Sends requests of one account, and gets a new access token when the API refuses the present one.

    `http` is for the functions of `tequipy_client.contract.api`. An async context manager, for one event loop. With
    `credentials` it continues an earlier session, which no other session object may use meanwhile.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        backoff: Backoff | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 30.0,
    ) -> None:
        """`url` is the address of the API without path; `timeout`, in seconds, is for each wait."""
        self._credentials = credentials or Credentials()
        self._ended: Problem | None = None
        self._renewal: asyncio.Task[None] | None = None
        transport = transport or httpx.AsyncHTTPTransport()
        backoff = backoff or Backoff()
        once = BackoffTransport(transport, backoff)
        self.http = httpx.AsyncClient(base_url=url, auth=_BearerAuth(self), transport=once, timeout=timeout)
        """Sends requests with the access token, if there is one."""
        # Without the access token. A refresh may be repeated: within a minute the API gives the same successor again.
        repeating = BackoffTransport(transport, backoff, all_methods=True)
        self._plain = httpx.AsyncClient(base_url=url, transport=once, timeout=timeout)
        self._refreshing = httpx.AsyncClient(base_url=url, transport=repeating, timeout=timeout)

    @property
    def credentials(self) -> Credentials:
        """The present tokens; each refresh changes them."""
        return self._credentials

    async def login(self, email: str, password: str) -> None:
        """Log in; raises `Unauthenticated` with code `invalid_credentials`, or `RateLimited` while that is refused."""
        device_token = self._credentials.device_token
        body = LoginBody(email=email, password=password, token_delivery=DELIVERY, device_token=device_token or UNSET)
        self._store(await accounts.login(self._plain, body=body))

    async def reauthenticate(self, password: str) -> None:
        """Prove that the owner is present, for operations that ask for it (`reauth_required`); replaces the tokens."""
        body = ReauthenticateBody(password=password, token_delivery=DELIVERY)
        self._store(await accounts.reauthenticate(self.http, body=body))

    async def refresh(self) -> None:
        """Get new tokens now; concurrent calls send one request. Raises `SessionEnded`."""
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._refresh())
            self._renewal.add_done_callback(self._finish)
        # Shielded, because other requests may wait for the same refresh.
        await asyncio.shield(self._renewal)

    async def logout(self) -> None:
        """End the session at the API and forget its tokens, except the device token."""
        if (refresh_token := self._credentials.refresh_token) is not None:
            await accounts.logout(self._plain, body=RefreshTokenBody(refresh_token=refresh_token))
        self._forget()

    async def access_token(self, refused: str | None) -> str | None:
        """Return an access token other than the refused one, or None without a session; raises `SessionEnded`."""
        if self._ended is not None:
            raise SessionEnded(self._ended)
        if self._credentials.access_token == refused and self._credentials.refresh_token is not None:
            await self.refresh()
        return self._credentials.access_token

    async def _refresh(self) -> None:
        refresh_token = self._credentials.refresh_token
        if refresh_token is None:
            raise SessionEnded(Problem(401, "refresh_missing", "There is no refresh token: log in."))
        try:
            tokens = await self._rotate(RefreshTokenBody(refresh_token=refresh_token))
        except Unauthenticated as error:
            if self._credentials.refresh_token != refresh_token:
                return  # a login or logout came in between
            self._forget()
            self._ended = error.problem
            raise SessionEnded(error.problem) from None
        if self._credentials.refresh_token == refresh_token:
            self._store(tokens)

    async def _rotate(self, body: RefreshTokenBody) -> Tokens:
        """Send a refresh, and once more if its answer is lost, because later the token would count as stolen."""
        try:
            return await accounts.refresh(self._refreshing, body=body)
        except httpx.TransportError:
            return await accounts.refresh(self._refreshing, body=body)

    def _finish(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # so that asyncio does not report it if all that waited have been cancelled

    def _store(self, tokens: Tokens) -> None:
        self._ended = None
        self._credentials = Credentials(
            tokens.access_token, tokens.refresh_token or None, tokens.device_token or self._credentials.device_token
        )

    def _forget(self) -> None:
        self._credentials = replace(self._credentials, access_token=None, refresh_token=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.http.aclose()  # closes the transport that all three clients use
        await self._plain.aclose()
        await self._refreshing.aclose()


class _BearerAuth(httpx.Auth):
    """Adds the access token, and repeats a request once with a new one."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = self._session.credentials.access_token
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        await response.aread()
        if problem_of(response).code in REFUSED_TOKEN:
            renewed = await self._session.access_token(refused=token)
            if renewed is not None and renewed != token:
                request.headers["Authorization"] = f"Bearer {renewed}"
                yield request

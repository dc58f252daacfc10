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
from tequipy_client.problems import Problem, ProblemError, SessionEnded, Unauthenticated, problem_of

DELIVERY: Final = "body"
REFUSED_TOKEN = frozenset({"invalid_token", "unauthenticated"})
"""Codes of 401 that say that there is no good access token; the others concern what the request contains."""
LOST_ANSWER = frozenset({502, 504})
"""Statuses of a gateway that got no answer from the API, which may have had the request."""


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
        self._auth = _BearerAuth(self, httpx.URL(url))
        self.http = httpx.AsyncClient(base_url=url, auth=self._auth, transport=once, timeout=timeout)
        """Sends requests with the access token, if there is one; not to other hosts."""
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
        tokens = await accounts.login(self._plain, body=body)
        self._auth.logins += 1
        self._store(tokens)

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
        login = self._auth.logins
        if (refresh_token := self._credentials.refresh_token) is not None:
            await accounts.logout(self._plain, body=RefreshTokenBody(refresh_token=refresh_token))
        if self._auth.logins == login:
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
            pass
        except ProblemError as error:
            if error.status not in LOST_ANSWER:
                raise
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
        if self._renewal is not None:
            await asyncio.wait([self._renewal])  # `credentials` must have the tokens that replace the present ones
        await self.http.aclose()  # closes the transport that all three clients use
        await self._plain.aclose()
        await self._refreshing.aclose()


class _BearerAuth(httpx.Auth):
    """Adds the access token to requests to the API, and repeats a request once with a new one.

    A request of an earlier login is not repeated, because the account may be another one; nor one whose body can be
    read once only.
    """

    def __init__(self, session: Session, api: httpx.URL) -> None:
        self._session = session
        self._api = api
        self.logins = 0
        """The number of logins until now."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if _origin(request.url) != _origin(self._api):
            yield request
            return
        token, login = self._session.credentials.access_token, self.logins
        readable_twice = isinstance(request.stream, httpx.ByteStream)
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        await response.aread()
        if problem_of(response).code not in REFUSED_TOKEN or self.logins != login:
            return
        renewed = await self._session.access_token(refused=token)
        if readable_twice and self.logins == login and renewed not in {None, token}:
            request.headers["Authorization"] = f"Bearer {renewed}"
            yield request


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port

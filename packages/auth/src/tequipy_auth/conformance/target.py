"""The interface between the conformance cases and the app under test."""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import pytest

PASSWORD = "correct horse battery staple"


class Target(ABC):
    """An app under test; subclass it and return an instance from the fixture `auth_target`."""

    prefix: ClassVar[str] = "/api/v1/auth"
    cookie: ClassVar[str] = "__Host-refresh"
    """The name of the refresh cookie; in the environment `local` it is `refresh`."""
    own_addresses: ClassVar[bool] = False
    """Whether each client of `connect` has its own client address; cases that need this are skipped otherwise."""

    breached_password: ClassVar[str | None] = None
    """A password that the app refuses because it is known from data breaches; None: the app does not look them up."""

    @abstractmethod
    def connect(self, process: int = 0) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Open a client with its own cookie jar and the app's public URL as base URL.

        `process` 0 and 1 select two processes of the app, if it has two.
        """

    @abstractmethod
    async def mails(self, address: str) -> Sequence[str]:
        """Wait until pending mails are sent, and return the texts of all mails to an address, ignoring its case."""

    async def pass_time(self, duration: timedelta) -> None:
        """Advance the app's clock; cases that need this are skipped unless it is overridden."""
        pytest.skip(f"the clock of this app cannot be advanced by {duration}")


@dataclass
class Browser:
    """A user at a client, with address, password and access token."""

    target: Target
    client: httpx.AsyncClient
    email: str = field(default_factory=lambda: f"{uuid4().hex}@example.com")
    password: str = PASSWORD
    access_token: str = ""

    async def post(self, route: str, body: object = None, **more: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's
        """Send JSON to a route of auth with POST."""
        return await self.client.post(f"{self.target.prefix}/{route}", json={} if body is None else body, **more)

    async def get(self, route: str, token: str | None = None) -> httpx.Response:
        """Send GET to a route of auth with an access token, by default the user's own."""
        bearer = {"Authorization": f"Bearer {self.access_token if token is None else token}"}
        return await self.client.get(f"{self.target.prefix}/{route}", headers=bearer)

    async def send(self, method: str, route: str) -> httpx.Response:
        """Send a request without a body, with the user's access token."""
        bearer = {"Authorization": f"Bearer {self.access_token}"}
        return await self.client.request(method, f"{self.target.prefix}/{route}", headers=bearer)

    async def register(self) -> httpx.Response:
        """Register."""
        return await self.post("register", {"email": self.email, "password": self.password})

    async def verify(self, **password: str) -> httpx.Response:
        """Verify the address with the token of the latest mail, and optionally with a password."""
        return await self.post("verify-email", {"token": await self.mailed_token()} | password)

    async def mailed_token(self) -> str:
        """Return the one-time token of the latest mail that contains one."""
        tokens = re.findall(r"#token=(\S+)", "\n".join(await self.target.mails(self.email)))
        assert tokens, f"no mail to {self.email} has a link"
        return str(tokens[-1])

    async def log_in(self, **changed: str) -> httpx.Response:
        """Log in, and store the access token if that succeeds."""
        answer = await self.post("login", {"email": self.email, "password": self.password} | changed)
        if answer.status_code == 200:
            self.access_token = answer.json()["access_token"]
        return answer

    async def refresh(self, token: str | None = None) -> httpx.Response:
        """Refresh with the cookie of the jar or with the given token."""
        if token is None:
            answer = await self.post("refresh")
        else:
            async with self.target.connect() as other:
                headers = {"Cookie": f"{self.target.cookie}={token}"}
                answer = await other.post(f"{self.target.prefix}/refresh", json={}, headers=headers)
        return answer

    @property
    def token(self) -> str:
        """The refresh token in the cookie jar."""
        return str(self.client.cookies[self.target.cookie])


@asynccontextmanager
async def browser(target: Target, *, like: Browser | None = None, process: int = 0) -> AsyncIterator[Browser]:
    """Open a browser for a new user, or for the same user on another device."""
    async with target.connect(process) as client:
        yield Browser(target, client, like.email, like.password) if like else Browser(target, client)


@asynccontextmanager
async def owner(target: Target) -> AsyncIterator[Browser]:
    """Open a browser of a user who has an account and has logged in."""
    async with browser(target) as person:
        assert (await person.register()).is_success
        assert (await person.verify()).status_code == 204
        assert (await person.log_in()).status_code == 200
        yield person


async def link_of(target: Target, address: str, purpose: str) -> dict[str, str]:
    """Return the body with the token of the latest link that was mailed to an address for a purpose."""
    tokens = re.findall(rf"/{purpose}#token=(\S+)", "\n".join(await target.mails(address)))
    assert tokens, f"no mail to {address} has a link to {purpose}"
    return {"token": str(tokens[-1])}


def problem(answer: httpx.Response, status: int) -> str:
    """Return the code of an error response, which must be a problem document with this status (RFC 9457)."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])

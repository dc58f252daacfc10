"""What the conformance cases need of an app: a way to talk to it, and to play what it needs from outside."""

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
    """An app under test; subclass it and return one from the fixture `auth_target`."""

    prefix: ClassVar[str] = "/api/v1/auth"
    cookie: ClassVar[str] = "__Host-refresh"
    """The name of the refresh cookie; an app that runs locally has `refresh`."""
    own_addresses: ClassVar[bool] = False
    """Whether each client of `connect` has a client address of its own; cases that need it are skipped otherwise."""

    @abstractmethod
    def connect(self, process: int = 0) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Open a client with a cookie jar of its own, its base URL being the app's public one.

        `process` 0 and 1 are two processes of the app, if there are two; otherwise both are the same.
        """

    @abstractmethod
    async def mails(self, address: str) -> Sequence[str]:
        """Return the texts of all mails to an address so far, once what the app has asked for has been sent."""

    async def pass_time(self, duration: timedelta) -> None:
        """Let time pass for the app; the cases that need it are skipped unless this is overridden."""
        pytest.skip(f"the clock of this app cannot be turned by {duration}")


@dataclass
class Browser:
    """A person at a client: knows address and password, and what the app has handed out."""

    target: Target
    client: httpx.AsyncClient
    email: str = field(default_factory=lambda: f"{uuid4().hex}@example.com")
    password: str = PASSWORD
    access_token: str = ""

    async def post(self, route: str, body: object = None, **more: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's
        """Send JSON to a route of auth."""
        return await self.client.post(f"{self.target.prefix}/{route}", json={} if body is None else body, **more)

    async def get(self, route: str, token: str | None = None) -> httpx.Response:
        """Ask a route of auth as the bearer of an access token, one's own unless another is given."""
        bearer = {"Authorization": f"Bearer {self.access_token if token is None else token}"}
        return await self.client.get(f"{self.target.prefix}/{route}", headers=bearer)

    async def send(self, method: str, route: str) -> httpx.Response:
        """Send a request without a body as the bearer of one's access token."""
        bearer = {"Authorization": f"Bearer {self.access_token}"}
        return await self.client.request(method, f"{self.target.prefix}/{route}", headers=bearer)

    async def register(self) -> httpx.Response:
        """Ask for an account."""
        return await self.post("register", {"email": self.email, "password": self.password})

    async def verify(self, **password: str) -> httpx.Response:
        """Follow the link of the latest mail that has one; with `password=` send that too."""
        return await self.post("verify-email", {"token": await self.mailed_token()} | password)

    async def mailed_token(self) -> str:
        """Return the one-time token of the latest mail that has one."""
        tokens = re.findall(r"#token=(\S+)", "\n".join(await self.target.mails(self.email)))
        assert tokens, f"no mail to {self.email} has a link"
        return str(tokens[-1])

    async def log_in(self, **changed: str) -> httpx.Response:
        """Log in, and keep the access token when that works."""
        answer = await self.post("login", {"email": self.email, "password": self.password} | changed)
        if answer.status_code == 200:
            self.access_token = answer.json()["access_token"]
        return answer

    async def refresh(self, token: str | None = None) -> httpx.Response:
        """Refresh by the cookie of the jar, or by a cookie that is given."""
        if token is None:
            answer = await self.post("refresh")
        else:
            async with self.target.connect() as other:
                headers = {"Cookie": f"{self.target.cookie}={token}"}
                answer = await other.post(f"{self.target.prefix}/refresh", json={}, headers=headers)
        return answer

    @property
    def token(self) -> str:
        """The refresh token of the jar."""
        return str(self.client.cookies[self.target.cookie])


@asynccontextmanager
async def browser(target: Target, *, like: Browser | None = None, process: int = 0) -> AsyncIterator[Browser]:
    """Open a browser for a new person, or for the same person on another device."""
    async with target.connect(process) as client:
        yield Browser(target, client, like.email, like.password) if like else Browser(target, client)


@asynccontextmanager
async def owner(target: Target) -> AsyncIterator[Browser]:
    """Open the browser of a person who has an account and has logged in."""
    async with browser(target) as person:
        assert (await person.register()).is_success
        assert (await person.verify()).status_code == 204
        assert (await person.log_in()).status_code == 200
        yield person


def problem(answer: httpx.Response, status: int) -> str:
    """Return the code of an error answer, which must be a problem document with this status (RFC 9457)."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])

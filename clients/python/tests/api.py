"""A model of the API's session routes, for an `httpx.MockTransport`."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping

import httpx

PASSWORD = "correct horse battery staple"


def problem(status: int, code: str, *, headers: Mapping[str, str] | None = None, **members: object) -> httpx.Response:
    """Return a problem document as the API sends it."""
    document = {
        "type": f"urn:tequipy:problem:{code}",
        "status": status,
        "code": code,
        "detail": f"This is {code}.",
        "correlation_id": "c-1",
        **members,
    }
    return httpx.Response(
        status, headers={"Content-Type": "application/problem+json", **(headers or {})}, content=json.dumps(document)
    )


class Api:
    """Accepts the newest access token and the newest refresh token; `answers` are given first, by path."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict[str, object]]] = []
        self.authorizations: list[str | None] = []
        """The header field `Authorization` of each request, without those of the session routes."""
        self.answers: dict[str, list[httpx.Response]] = {}
        self.number = 0
        self.expired = False
        self.lost_answers = 0
        """The number of next refreshes whose answer is lost."""
        self.refreshing = asyncio.Event()
        """Set while refreshes are answered."""
        self.refreshing.set()
        self.answering_logouts = asyncio.Event()
        """Set while logouts are answered."""
        self.answering_logouts.set()

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.respond)

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path.rpartition("/")[2]
        self.calls[path] += 1
        body = json.loads(await request.aread() or b"{}")
        self.bodies.append((path, body))
        await asyncio.sleep(0)  # so that concurrent requests overlap
        if waiting := self.answers.get(path):
            return waiting.pop(0)
        match path:
            case "login" | "reauthenticate":
                wrong = body["password"] != PASSWORD
                return problem(401, "invalid_credentials") if wrong else self.tokens()
            case "refresh":
                await self.refreshing.wait()
                if self.lost_answers:
                    self.lost_answers -= 1
                    raise httpx.ReadError("the connection was closed")
                wrong = body["refresh_token"] != f"refresh-{self.number}"
                return problem(401, "refresh_reused") if wrong else self.tokens()
            case "logout":
                await self.answering_logouts.wait()
                return httpx.Response(204)
        self.authorizations.append(request.headers.get("Authorization"))
        good = self.authorizations[-1] == f"Bearer access-{self.number}" and not self.expired
        return httpx.Response(200, json=ME) if good else problem(401, "invalid_token")

    def tokens(self) -> httpx.Response:
        """Return new tokens; earlier ones are refused from now on."""
        self.number += 1
        self.expired = False
        return httpx.Response(
            200,
            json={
                "access_token": f"access-{self.number}",
                "expires_in": 900,
                "refresh_token": f"refresh-{self.number}",
                "refresh_expires_in": 604800,
                "device_token": "device-1",
            },
        )


ME = {
    "id": "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e",
    "email": "ada@example.com",
    "email_verified": True,
    "name": None,
    "roles": ["user"],
    "permissions": [],
    "created_at": "2026-01-31T10:30:00Z",
}

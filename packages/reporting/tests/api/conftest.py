"""Auth and reporting in memory with their real routes, and an account of each kind."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_auth import Client
from tequipy_auth.api import wire_auth
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_platform.web import CatchErrors, LimitBodies, NoStore, Pipeline, wire_errors
from tequipy_reporting import PERMISSIONS, Reporting
from tequipy_reporting.api import wire_reporting
from tequipy_reporting.testing import MemoryReportingUnitOfWork, build_fake_reporting

PASSWORD = "correct horse battery staple"


@dataclass
class World:
    """An app, and the bearer headers of an account of each kind."""

    app: FastAPI
    client: httpx.AsyncClient
    reporting: Reporting
    headers: dict[str, dict[str, str]] = field(default_factory=dict)

    async def call(self, method: str, path: str = "", *, caller: str = "admin", **options: Any) -> httpx.Response:
        """Call a route below `/api/v1/reports`."""
        headers = self.headers[caller] | options.pop("headers", {})
        return await self.client.request(method, f"/api/v1/reports{path}", headers=headers, **options)


@pytest.fixture
async def world(work: MemoryReportingUnitOfWork, clock: FrozenClock) -> AsyncIterator[World]:
    reporting = build_fake_reporting(work, clock=clock, storage=MemoryStorage(clock))
    accounts = MemoryAuthUnitOfWork(clock)
    auth = build_fake_auth(accounts, clock=clock, permissions=PERMISSIONS, personal_data=[reporting.personal_data])
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, auth)
    wire_reporting(app, reporting)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
        world = World(app, client, reporting, {"nobody": {}})
        for name in ("user", "support", "admin", "disabled"):
            body = {"email": f"{name}@example.com", "password": PASSWORD}
            await auth.registration.create_admin(**body)
            (account,) = [row.id for row in accounts.users.rows.values() if row.email.written == body["email"]]
            await accounts.users.set_roles(account, ("user",) if name == "disabled" else (name,))
            answer = await client.post("/api/v1/auth/login", json=body | {"token_delivery": "body"})
            world.headers[name] = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            if name == "disabled":
                admin = world.headers["admin"]["Authorization"].removeprefix("Bearer ")
                principal = await auth.access_tokens.verify(admin)
                await auth.administration.disable(principal, account, client=Client())
        yield world

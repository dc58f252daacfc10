"""Audit events that unauthenticated requests cause."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_auth import OneTimeTokenValue, RefreshTokenValue
from tequipy_auth.api import wire_auth
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations, build_fake_auth
from tequipy_platform import SystemClock
from tequipy_platform.web import CatchErrors, LimitBodies, NoStore, Pipeline, wire_errors

UNKNOWN_LINK = str(OneTimeTokenValue.new(MemoryAuthUnitOfWork(SystemClock()).new_id(), bytes(32)))
UNKNOWN_REFRESH = str(RefreshTokenValue.new(MemoryAuthUnitOfWork(SystemClock()).new_id(), bytes(32)))
TOKENS = ["x", "ev1.x.y", "rt1." + "A" * 66, "a.b.c", "ev1." + "\u00e9" * 66, UNKNOWN_LINK, UNKNOWN_REFRESH]


@pytest.mark.parametrize("token", TOKENS)
async def test_unknown_tokens_are_counted_and_not_audited(token: str) -> None:
    """Malformed and never issued tokens leave no audit event, at every route that accepts a token."""
    work, operations = MemoryAuthUnitOfWork(SystemClock()), RecordingOperations()
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, build_fake_auth(work, operations=operations))
    bearer = {"Authorization": f"Bearer {token}"} if token.isascii() else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        await client.post("/api/v1/auth/verify-email", json={"token": token})
        await client.post("/api/v1/auth/password/reset", json={"token": token, "new_password": "a good new password"})
        await client.post("/api/v1/auth/refresh", json={"refresh_token": token})
        await client.post("/api/v1/auth/logout", json={"refresh_token": token}, headers=bearer)
        await client.post("/api/v1/auth/reauthenticate", json={"password": "some password"}, headers=bearer)
    assert work.audit.events == []
    assert {
        (operation, status) for operation, status in operations.counts if operation not in {"logout", "reauthenticate"}
    } == {
        ("verify_email", "token_invalid"),
        ("reset_password", "token_invalid"),
        ("refresh", "refresh_invalid"),
    }

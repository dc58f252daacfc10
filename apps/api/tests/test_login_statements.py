"""What logins and refreshes cost the database."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, event

ACCOUNT = {"email": "admin@example.com", "password": "correct horse battery staple"}


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Return the first words of the statements that all engines of this process execute."""
    executed: list[str] = []

    def executing(*arguments: object) -> None:
        executed.append(str(arguments[2]).split()[0])

    event.listen(Engine, "before_cursor_execute", executing)
    yield executed
    event.remove(Engine, "before_cursor_execute", executing)


async def test_a_refresh_costs_three_statements(app: FastAPI, client: httpx.AsyncClient, statements: list[str]) -> None:
    """A refresh reads token, session and account by one statement, rotates by one, and audits by one."""
    await app.state.auth.registration.create_admin(**ACCOUNT)
    login = await client.post("/api/v1/auth/login", json=ACCOUNT | {"token_delivery": "body"})
    statements.clear()
    answer = await client.post("/api/v1/auth/refresh", json={"refresh_token": login.json()["refresh_token"]})
    assert answer.status_code == 200
    assert statements == ["SELECT", "WITH", "INSERT"]


async def test_a_login_costs_ten_statements(app: FastAPI, client: httpx.AsyncClient, statements: list[str]) -> None:
    """A login reads, locks and reserves by four statements before hashing, and stores its result by six."""
    await app.state.auth.registration.create_admin(**ACCOUNT)
    await client.post("/api/v1/auth/login", json=ACCOUNT | {"token_delivery": "body"})
    statements.clear()
    answer = await client.post("/api/v1/auth/login", json=ACCOUNT | {"token_delivery": "body"})
    assert answer.status_code == 200
    assert statements == ["SELECT", "INSERT", "UPDATE", "SELECT", "SELECT", "WITH", "INSERT", "WITH", "WITH", "INSERT"]

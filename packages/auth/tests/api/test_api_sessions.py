"""The sessions of an account over HTTP: the list, and the end of single ones."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from tequipy_auth import Client
from tequipy_auth.testing import MemoryAuthUnitOfWork

from .routes import GOOD, LOGIN, ME, SESSIONS, bearer, code_of, log_in

pytestmark = pytest.mark.usefixtures("user")


async def test_a_session_stores_its_client(client: httpx.AsyncClient, work: MemoryAuthUnitOfWork) -> None:
    """A login stores the client address and the first 512 characters of the user agent."""
    await client.post(LOGIN, json=GOOD, headers={"User-Agent": "x" * 1000})
    (session,) = work.sessions.rows.values()
    assert session.client == Client(ip="127.0.0.1", user_agent="x" * 512)


async def test_sessions_are_listed(client: httpx.AsyncClient) -> None:
    """The list contains each session with its client and expiry, latest login first, the current one marked."""
    first = await log_in(client)
    second = await client.post(LOGIN, json=GOOD, headers={"User-Agent": "phone"})
    answer = await client.get(SESSIONS, headers=bearer(first))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"items"}
    items = answer.json()["items"]
    assert [item["current"] for item in items] == [False, True]
    assert items[0]["user_agent"] == "phone"
    assert items[0].keys() == {"id", "created_at", "last_used_at", "expires_at", "ip", "user_agent", "current"}
    assert second.status_code == 200


async def test_expiry_is_the_earlier_of_both_ends(client: httpx.AsyncClient, work: MemoryAuthUnitOfWork) -> None:
    """`expires_at` is the idle expiry or the absolute expiry, whichever is earlier."""
    answer = await log_in(client)
    (session,) = work.sessions.rows.values()
    absolute = session.idle_expires_at - timedelta(days=1)
    for changed, expected in (
        (session, session.idle_expires_at),
        (replace(session, absolute_expires_at=absolute), absolute),
    ):
        work.sessions.rows[session.id] = changed
        (item,) = (await client.get(SESSIONS, headers=bearer(answer))).json()["items"]
        assert datetime.fromisoformat(item["expires_at"]) == expected


async def test_another_device_is_logged_out(client: httpx.AsyncClient) -> None:
    """DELETE ends the session; ended, unknown and foreign sessions get 404, malformed ids too."""
    mine, other = await log_in(client), await log_in(client)
    items = (await client.get(SESSIONS, headers=bearer(mine))).json()["items"]
    (their_id,) = [item["id"] for item in items if not item["current"]]
    assert (await client.delete(f"{SESSIONS}/{their_id}", headers=bearer(mine))).status_code == 204
    assert code_of(await client.get(ME, headers=bearer(other)), 401) == "invalid_token"
    for unknown in (their_id, str(uuid4()), "x"):
        assert code_of(await client.delete(f"{SESSIONS}/{unknown}", headers=bearer(mine)), 404) == "not_found"


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "logout-all"),
        ("POST", "logout-others"),
        ("GET", "sessions"),
        ("DELETE", "sessions/01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"),
    ],
)
async def test_sessions_require_a_bearer_token(client: httpx.AsyncClient, method: str, route: str) -> None:
    """Without a token, or with the cookie only, no session is shown or ended."""
    await log_in(client)
    answer = await client.request(method, f"/api/v1/auth/{route}")
    assert code_of(answer, 401) == "unauthenticated"

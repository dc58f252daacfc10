"""The attributes and the lifetime of the refresh cookie."""

from dataclasses import replace
from datetime import timedelta
from http.cookies import Morsel, SimpleCookie

import httpx
import pytest

from tequipy_auth.testing import MemoryAuthUnitOfWork

from .routes import GOOD

pytestmark = pytest.mark.usefixtures("user")


async def post(client: httpx.AsyncClient, route: str, body: object) -> Morsel[str]:
    """Return the refresh cookie of a successful response."""
    answer = await client.post(f"/api/v1/auth/{route}", json=body)
    assert answer.status_code == 200, answer.text
    name = "__Host-refresh" if answer.url.scheme == "https" else "refresh"
    return next(
        cookie[name] for header in answer.headers.get_list("set-cookie") if name in (cookie := SimpleCookie(header))
    )


@pytest.mark.parametrize("route", ["login", "refresh"])
async def test_the_cookie_is_bound_to_the_host(client: httpx.AsyncClient, route: str) -> None:
    """The cookie has Secure, Path=/, HttpOnly and SameSite=Strict, and no Domain (RFC 6265bis)."""
    cookie = await post(client, "login", GOOD)
    if route == "refresh":
        cookie = await post(client, "refresh", {})
    assert (cookie["secure"], cookie["httponly"], cookie["path"], cookie["domain"]) == (True, True, "/", "")
    assert cookie["samesite"].lower() == "strict"


async def test_a_local_cookie_lacks_secure_only(local_client: httpx.AsyncClient) -> None:
    """On a developer's machine the cookie is named `refresh` and lacks Secure; other attributes are the same."""
    cookie = await post(local_client, "login", GOOD)
    assert (cookie["secure"], cookie["httponly"], cookie["path"], cookie["domain"]) == ("", True, "/", "")
    assert cookie["samesite"].lower() == "strict"


@pytest.mark.parametrize(
    ("left", "expected"), [(timedelta(days=20), timedelta(days=7)), (timedelta(days=2), timedelta(days=2))]
)
async def test_the_cookie_never_outlives_the_session(
    client: httpx.AsyncClient, work: MemoryAuthUnitOfWork, left: timedelta, expected: timedelta
) -> None:
    """Max-Age is the idle lifetime, or less if the absolute expiry is sooner."""
    assert (await post(client, "login", GOOD))["max-age"] == str(7 * 86400)
    (session,) = work.sessions.rows.values()
    end = session.created_at + left
    work.sessions.rows[session.id] = replace(session, absolute_expires_at=end)
    cookie = await post(client, "refresh", {})
    assert expected.total_seconds() - 60 < int(cookie["max-age"]) <= expected.total_seconds()

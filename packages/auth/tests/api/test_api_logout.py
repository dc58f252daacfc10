"""Logout over HTTP: credentials, responses and cookies."""

import httpx
import pytest

from .routes import LOGOUT, ME, REFRESH, bearer, code_of, is_deletion, log_in, morsel

pytestmark = pytest.mark.usefixtures("user")


async def test_logout_by_cookie_ends_the_session(client: httpx.AsyncClient) -> None:
    """204, the cookie is deleted and its token invalid; a repeated logout gets 204 too."""
    kept = morsel(await log_in(client)).value
    answer = await client.post(LOGOUT, json={})
    assert (answer.status_code, answer.content) == (204, b"")
    assert is_deletion(answer)
    assert answer.headers["cache-control"] == "no-store"
    client.cookies.clear()
    cookie = {"Cookie": f"__Host-refresh={kept}"}
    answer = await client.post(REFRESH, json={}, headers=cookie)
    assert code_of(answer, 401) == "session_revoked"
    assert is_deletion(answer)
    assert (await client.post(LOGOUT, json={}, headers=cookie)).status_code == 204


async def test_logout_by_a_superseded_cookie_ends_the_session(client: httpx.AsyncClient) -> None:
    """A cookie with a used token can still log out."""
    old = morsel(await log_in(client)).value
    new = morsel(await client.post(REFRESH, json={})).value
    client.cookies.clear()
    assert (await client.post(LOGOUT, json={}, headers={"Cookie": f"__Host-refresh={old}"})).status_code == 204
    assert code_of(await client.post(REFRESH, json={"refresh_token": new}), 401) == "session_revoked"


async def test_logout_by_body_and_by_bearer(client: httpx.AsyncClient) -> None:
    """Clients without cookies log out with the refresh token or the access token, and no cookie is set."""
    for by_body in (True, False):
        tokens = (await log_in(client, token_delivery="body")).json()
        if by_body:
            answer = await client.post(LOGOUT, json={"refresh_token": tokens["refresh_token"]})
        else:
            answer = await client.post(LOGOUT, headers={"Authorization": f"Bearer {tokens['access_token']}"})
        assert answer.status_code == 204
        assert "set-cookie" not in answer.headers
        answer = await client.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})
        assert code_of(answer, 401) == "session_revoked"


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer rubbish"}, {"Cookie": "__Host-refresh=rubbish", "X-Requested-With": "x"}]
)
async def test_logout_without_a_valid_credential_is_204(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """A logout without a valid credential gets 204."""
    assert (await client.post(LOGOUT, headers=headers)).status_code == 204


@pytest.mark.parametrize(("route", "mine_lives"), [("logout-all", False), ("logout-others", True)])
async def test_logging_out_of_many(client: httpx.AsyncClient, route: str, mine_lives: bool) -> None:
    """All sessions end, or all others; only the former deletes the cookie."""
    other, mine = await log_in(client), await log_in(client)
    answer = await client.post(f"/api/v1/auth/{route}", headers=bearer(mine))
    assert answer.status_code == 204
    assert ("set-cookie" in answer.headers) is not mine_lives
    assert mine_lives or is_deletion(answer)
    assert code_of(await client.get(ME, headers=bearer(other)), 401) == "invalid_token"
    assert (await client.get(ME, headers=bearer(mine))).status_code == (200 if mine_lives else 401)

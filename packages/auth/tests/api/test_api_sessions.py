"""Login, refresh and logout over HTTP: bodies, cookies and credentials."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from http.cookies import Morsel, SimpleCookie
from uuid import uuid4

import httpx
import pytest

from tequipy_auth import (
    Auth,
    Client,
    RefreshExpired,
    RefreshInvalid,
    RefreshReused,
    RefreshSuperseded,
    SessionRevoked,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork

GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}
LOGIN, REFRESH, LOGOUT, ME, SESSIONS = (
    f"/api/v1/auth/{name}" for name in ("login", "refresh", "logout", "me", "sessions")
)


def code_of(answer: httpx.Response, status: int) -> str:
    """Return the code of an uncacheable error response with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    code: str = answer.json()["code"]
    return code


def morsel(answer: httpx.Response, name: str = "__Host-refresh") -> Morsel[str]:
    """Return the only cookie of this name that a response sets."""
    (cookie,) = [SimpleCookie(header) for header in answer.headers.get_list("set-cookie") if header.startswith(name)]
    return cookie[name]


def is_deletion(answer: httpx.Response) -> bool:
    """Return whether the response deletes the refresh cookie with the attributes that `__Host-` requires."""
    cookie = morsel(answer)
    return (cookie.value, cookie["max-age"], cookie["path"], cookie["secure"]) == ("", "0", "/", True)


async def log_in(client: httpx.AsyncClient, **more: object) -> httpx.Response:
    answer = await client.post(LOGIN, json=GOOD | more)
    assert answer.status_code == 200, answer.text
    return answer


pytestmark = pytest.mark.usefixtures("user")


async def test_login_hands_out_an_access_token_and_a_cookie(client: httpx.AsyncClient) -> None:
    """The body contains the access token only; the refresh cookie has all protective attributes."""
    answer = await log_in(client)
    assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
    assert answer.json()["token_type"] == "Bearer"
    assert 0 < answer.json()["expires_in"] <= 900
    cookie = morsel(answer)
    assert cookie.value.startswith("rt1.")
    assert (cookie["path"], cookie["secure"], cookie["httponly"], cookie["domain"]) == ("/", True, True, "")
    assert cookie["samesite"].lower() == "strict"
    assert cookie["max-age"] == str(7 * 86400)
    assert answer.headers["cache-control"] == "no-store"


async def test_body_delivery_sets_no_cookie(client: httpx.AsyncClient) -> None:
    """With body delivery, logins and refreshes return the refresh token and its lifetime in the body."""
    answer = await log_in(client, token_delivery="body")
    assert answer.json()["device_token"].startswith("dv2.")
    for more in ({"device_token"}, set[str]()):
        tokens = answer.json()
        named = {"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in"}
        assert tokens.keys() == named | more
        assert tokens["refresh_expires_in"] == 7 * 86400
        assert "set-cookie" not in answer.headers
        answer = await client.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 200


async def test_a_local_cookie_needs_no_tls(local_client: httpx.AsyncClient) -> None:
    """On a developer's machine the cookie is named `refresh` and works over http."""
    answer = await log_in(local_client)
    cookie = morsel(answer, "refresh")
    assert (cookie["secure"], cookie["httponly"], cookie["path"]) == ("", True, "/")
    assert (await local_client.post(REFRESH, json={})).status_code == 200


@pytest.mark.parametrize("wrong", [{"password": "wrong horse battery staple"}, {"email": "eve@example.com"}])
async def test_wrong_credentials_answer_alike(client: httpx.AsyncClient, wrong: dict[str, str]) -> None:
    """An unknown address and a wrong password get the same response."""
    answer = await client.post(LOGIN, json=GOOD | wrong)
    assert code_of(answer, 401) == "invalid_credentials"
    assert "set-cookie" not in answer.headers
    assert answer.json()["detail"] == "The address or the password is wrong."


async def test_an_unknown_delivery_is_refused(client: httpx.AsyncClient) -> None:
    """`token_delivery` is `cookie` or `body`."""
    assert code_of(await client.post(LOGIN, json=GOOD | {"token_delivery": "header"}), 422) == "validation_failed"


async def test_refresh_rotates_the_cookie(client: httpx.AsyncClient) -> None:
    """Each refresh sets the successor and returns a valid access token."""
    first = morsel(await log_in(client)).value
    answer = await client.post(REFRESH, json={})
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
    assert morsel(answer).value not in {"", first}
    me = await client.get(ME, headers={"Authorization": f"Bearer {answer.json()['access_token']}"})
    assert me.status_code == 200


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {"Content-Type": "application/json"}),
        (b"{}", {"Content-Type": "application/json; charset=utf-8"}),
        (b'{"refresh_token": null}', {"Content-Type": "application/json"}),
        (b"", {"X-Requested-With": "XMLHttpRequest"}),
    ],
)
async def test_refresh_by_cookie_needs_no_body(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str]
) -> None:
    """With a cookie the body may be empty, `{}` or missing."""
    await log_in(client)
    assert (await client.post(REFRESH, content=content, headers=headers)).status_code == 200


async def test_two_tokens_are_ambiguous(client: httpx.AsyncClient) -> None:
    """Cookie and body together get 400 at refresh and logout, and neither token is used."""
    sent = (await log_in(client, token_delivery="body")).json()["refresh_token"]
    await log_in(client)
    for route in (REFRESH, LOGOUT):
        answer = await client.post(route, json={"refresh_token": sent})
        assert code_of(answer, 400) == "ambiguous_credentials"
        assert "set-cookie" not in answer.headers
    assert (await client.post(REFRESH, json={})).status_code == 200
    client.cookies.clear()
    assert (await client.post(REFRESH, json={"refresh_token": sent})).status_code == 200


async def test_refreshing_without_a_token_is_missing(client: httpx.AsyncClient) -> None:
    """A request without a token or with an empty cookie gets `refresh_missing`."""
    assert code_of(await client.post(REFRESH, json={}), 401) == "refresh_missing"
    answer = await client.post(REFRESH, json={}, headers={"Cookie": "__Host-refresh="})
    assert code_of(answer, 401) == "refresh_missing"


async def test_a_malformed_cookie_stays(client: httpx.AsyncClient) -> None:
    """A malformed token gets 401 `refresh_invalid`, and the cookie is not deleted."""
    answer = await client.post(REFRESH, json={}, headers={"Cookie": "__Host-refresh=rubbish"})
    assert code_of(answer, 401) == "refresh_invalid"
    assert "set-cookie" not in answer.headers
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("error", "deleted"),
    [
        (RefreshInvalid, False),
        (RefreshExpired, False),
        (RefreshSuperseded, False),
        (RefreshReused, True),
        (SessionRevoked, True),
    ],
)
async def test_only_an_ended_session_deletes_the_cookie(
    client: httpx.AsyncClient,
    auth: Auth,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], Exception],
    deleted: bool,
) -> None:
    """A reused token or revoked session deletes the cookie; other errors keep it, and a token in the body sets none."""

    async def refuse(*_: object, **__: object) -> None:
        raise error()

    token = morsel(await log_in(client)).value
    monkeypatch.setattr(type(auth.sessions), "refresh", refuse)
    answer = await client.post(REFRESH, json={})
    assert answer.status_code == 401
    assert answer.headers["cache-control"] == "no-store"
    assert ("set-cookie" in answer.headers) is deleted
    assert not deleted or is_deletion(answer)
    client.cookies.clear()
    answer = await client.post(REFRESH, json={"refresh_token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


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


async def test_a_session_stores_its_client(client: httpx.AsyncClient, work: MemoryAuthUnitOfWork) -> None:
    """A login stores the client address and the first 512 characters of the user agent."""
    await client.post(LOGIN, json=GOOD, headers={"User-Agent": "x" * 1000})
    (session,) = work.sessions.rows.values()
    assert session.client == Client(ip="127.0.0.1", user_agent="x" * 512)


def bearer(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


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
    """DELETE ends the session; ended, unknown and foreign sessions get 404, malformed ids 422."""
    mine, other = await log_in(client), await log_in(client)
    items = (await client.get(SESSIONS, headers=bearer(mine))).json()["items"]
    (their_id,) = [item["id"] for item in items if not item["current"]]
    assert (await client.delete(f"{SESSIONS}/{their_id}", headers=bearer(mine))).status_code == 204
    assert code_of(await client.get(ME, headers=bearer(other)), 401) == "invalid_token"
    for unknown in (their_id, str(uuid4())):
        assert code_of(await client.delete(f"{SESSIONS}/{unknown}", headers=bearer(mine)), 404) == "not_found"
    assert code_of(await client.delete(f"{SESSIONS}/x", headers=bearer(mine)), 422) == "validation_failed"


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


@pytest.mark.parametrize(
    ("method", "route"),
    [("POST", "logout-all"), ("POST", "logout-others"), ("GET", "sessions"), ("DELETE", "sessions/x")],
)
async def test_sessions_require_a_bearer_token(client: httpx.AsyncClient, method: str, route: str) -> None:
    """Without a token, or with the cookie only, no session is shown or ended."""
    await log_in(client)
    answer = await client.request(method, f"/api/v1/auth/{route}")
    assert code_of(answer, 401) == "unauthenticated"

"""Refresh over HTTP: credentials, responses and cookies."""

from collections.abc import Callable

import httpx
import pytest

from tequipy_auth import Auth, RefreshExpired, RefreshInvalid, RefreshReused, RefreshSuperseded, SessionRevoked

from .routes import LOGOUT, ME, REFRESH, code_of, is_deletion, log_in, morsel

pytestmark = pytest.mark.usefixtures("user")


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

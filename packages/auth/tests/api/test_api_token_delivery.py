"""Login over HTTP: the tokens in cookie and body, and the credentials that are refused."""

import httpx
import pytest

from .routes import GOOD, LOGIN, REFRESH, code_of, log_in, morsel

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

"""Protection from cross-site request forgery: which requests may use the refresh cookie."""

import httpx
import pytest

from .routes import GOOD, log_in

OWN = "https://app.example.com"
FRIEND = "https://friend.example.net"
LISTED = "SHOP_ORIGINS lists the origins that are."
JSON = {"Content-Type": "application/json"}

ALLOWED = [
    JSON,
    {"Content-Type": "Application/JSON ; charset=utf-8"},
    {"X-Requested-With": "fetch"},
    {"X-Requested-With": "fetch", "Content-Type": "text/plain"},
    JSON | {"Origin": OWN},
    JSON | {"Origin": FRIEND},
    JSON | {"Sec-Fetch-Site": "same-origin"},
    JSON | {"Sec-Fetch-Site": "same-site", "Origin": OWN},
    JSON | {"Sec-Fetch-Site": "none"},
]
REFUSED = [
    {},
    {"Content-Type": "text/plain"},
    {"Content-Type": "text/plain; application/json"},
    JSON | {"Origin": "https://evil.example"},
    JSON | {"Origin": "http://app.example.com"},
    JSON | {"Origin": f"{OWN}:8443"},
    JSON | {"Origin": f"{OWN}.evil.example"},
    JSON | {"Origin": "null"},
    JSON | {"Sec-Fetch-Site": "cross-site"},
    JSON | {"Sec-Fetch-Site": "cross-site", "Origin": OWN},
    {"X-Requested-With": "fetch", "Origin": "https://evil.example"},
]

pytestmark = pytest.mark.usefixtures("user")


@pytest.mark.parametrize("headers", ALLOWED, ids=str)
@pytest.mark.parametrize(("route", "status"), [("refresh", 200), ("logout", 204)])
async def test_own_pages_may_use_the_cookie(
    client: httpx.AsyncClient, route: str, status: int, headers: dict[str, str]
) -> None:
    """JSON or `X-Requested-With`, from an allowed origin or without one, may use the cookie."""
    await log_in(client)
    assert (await client.post(f"/api/v1/auth/{route}", headers=headers)).status_code == status


@pytest.mark.parametrize("headers", REFUSED, ids=str)
@pytest.mark.parametrize("route", ["refresh", "logout"])
async def test_other_pages_may_not_use_the_cookie(
    client: httpx.AsyncClient, route: str, headers: dict[str, str]
) -> None:
    """Any other request gets 403 `csrf_failed`, does not use the token and keeps the cookie."""
    await log_in(client)
    token = client.cookies["__Host-refresh"]
    answer = await client.post(f"/api/v1/auth/{route}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    client.cookies.clear()
    for _ in range(2):  # this is the first use: after a second one the successor would be used
        answer = await client.post("/api/v1/auth/refresh", json={"refresh_token": token})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        (
            {"Content-Type": "text/plain", "Origin": "https://evil.example"},
            (
                "The request has neither Content-Type: application/json nor the header X-Requested-With; "
                "send one of them, which forms of other sites cannot."
            ),
        ),
        (
            JSON | {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
            (
                "The Sec-Fetch-Site header tells that the page is of another site than this API, which no setting "
                "allows: serve both under one scheme and registrable domain (localhost and 127.0.0.1 are two sites)."
            ),
        ),
        (
            JSON | {"Origin": "https://evil.example"},
            f"The Origin header names https://evil.example, which is not allowed; {LISTED}",
        ),
        (
            JSON | {"Origin": "https://evil.example/<script>"},
            f"The Origin header names no web page, which is not allowed; {LISTED}",
        ),
        (
            JSON | {"Origin": "null"},
            "The Origin header is null, which no setting allows: serve the page by HTTP, outside of a sandbox.",
        ),
    ],
)
async def test_a_refusal_says_which_header_was_refused(
    client: httpx.AsyncClient, headers: dict[str, str], detail: str
) -> None:
    """The detail names the header that was refused, and the setting that would allow it or that none does."""
    await log_in(client)
    answer = await client.post("/api/v1/auth/refresh", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (403, detail)
    assert answer.json()["title"] == "Cross-site request refused"


@pytest.mark.parametrize("headers", [REFUSED[3], REFUSED[8]], ids=str)
async def test_login_into_a_cookie_is_protected_too(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Pages of other sites cannot log in with cookie delivery; with body delivery no cookie is set."""
    answer = await client.post("/api/v1/auth/login", json=GOOD, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
    assert "set-cookie" not in answer.headers
    answer = await client.post("/api/v1/auth/login", json=GOOD | {"token_delivery": "body"}, headers=headers)
    assert answer.status_code == 200


async def test_two_origins_must_both_be_allowed(client: httpx.AsyncClient) -> None:
    """Every `Origin` header is checked."""
    await log_in(client)
    headers = [("Content-Type", "application/json"), ("Origin", OWN), ("Origin", "https://evil.example")]
    assert (await client.post("/api/v1/auth/refresh", headers=headers)).status_code == 403


async def test_the_own_host_is_an_allowed_origin_only_locally(
    client: httpx.AsyncClient, local_client: httpx.AsyncClient
) -> None:
    """On a developer's machine the app may have another host name than the public URL."""
    for some, url, expected in ((local_client, "http://127.0.0.1:8000", 200), (client, "https://10.0.0.7", 403)):
        login = await some.post("/api/v1/auth/login", json=GOOD)
        cookie = login.headers["set-cookie"].partition(";")[0]
        answer = await some.post(f"{url}/api/v1/auth/refresh", json={}, headers={"Origin": url, "Cookie": cookie})
        assert answer.status_code == expected


async def test_a_logout_with_a_bearer_token_is_allowed(client: httpx.AsyncClient) -> None:
    """Pages of other sites cannot send an Authorization header, so a cookie is accepted together with it."""
    access = (await client.post("/api/v1/auth/login", json=GOOD)).json()["access_token"]
    answer = await client.post("/api/v1/auth/logout", headers={"Authorization": f"Bearer {access}"})
    assert answer.status_code == 204
    assert "set-cookie" in answer.headers


@pytest.mark.parametrize("route", ["login", "refresh", "logout"])
async def test_the_cookie_requires_post(client: httpx.AsyncClient, route: str) -> None:
    """A link, which is a GET request, cannot use the cookie."""
    assert (await client.get(f"/api/v1/auth/{route}")).status_code == 405

"""The shipped app: the main requests, readiness, metrics, and headers of every response."""

import importlib
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable

import httpx
import jwt
import pytest
from fastapi import FastAPI

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform import Mail

API = "/api/v1/auth"
GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}


async def sign_up(client: httpx.AsyncClient, deliver_mails: Callable[[], Awaitable[list[Mail]]]) -> None:
    assert (await client.post(f"{API}/register", json=GOOD | {"name": "Ada"})).status_code == 202
    (mail,) = await deliver_mails()
    assert mail.to == GOOD["email"]
    links = re.findall(r"https://app\.example\.com/verify-email#token=(ev1\.[\w-]{22}\.[\w-]{43})", mail.text)
    answer = await client.post(f"{API}/verify-email", json={"token": links[0]})
    assert answer.status_code == 204, answer.text


async def test_the_main_requests_of_an_account(
    client: httpx.AsyncClient, deliver_mails: Callable[[], Awaitable[list[Mail]]]
) -> None:
    """Register, follow the mailed link, log in, me, refresh and log out work on PostgreSQL and Valkey."""
    assert (await client.post(f"{API}/login", json=GOOD)).status_code == 401
    await sign_up(client, deliver_mails)
    login = await client.post(f"{API}/login", json=GOOD)
    assert login.status_code == 200, login.text
    first = client.cookies["__Host-refresh"]
    for _ in range(2):  # answered from PostgreSQL, then from the cache
        me = await client.get(f"{API}/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
        assert (me.status_code, me.json()["email"], me.json()["name"]) == (200, GOOD["email"], "Ada")
    assert (await client.post(f"{API}/refresh", json={})).status_code == 200
    assert client.cookies["__Host-refresh"] != first
    assert (await client.post(f"{API}/logout", json={})).status_code == 204
    assert "__Host-refresh" not in client.cookies
    again = await client.post(f"{API}/refresh", json={"refresh_token": first})
    assert (again.status_code, again.json()["code"]) == (401, "session_revoked")


async def test_a_known_address_is_only_revealed_by_mail(
    client: httpx.AsyncClient, deliver_mails: Callable[[], Awaitable[list[Mail]]]
) -> None:
    """Registering an address with an account gives 202, and its owner a mail without a verification link."""
    await sign_up(client, deliver_mails)
    assert (await client.post(f"{API}/register", json=GOOD)).status_code == 202
    (mail,) = await deliver_mails()
    assert "#token=" not in mail.text


async def test_a_lost_response_does_not_end_the_session(
    client: httpx.AsyncClient, deliver_mails: Callable[[], Awaitable[list[Mail]]]
) -> None:
    """Within the grace period a parent token gives the same successor again, until the successor is used."""
    await sign_up(client, deliver_mails)
    tokens = (await client.post(f"{API}/login", json=GOOD | {"token_delivery": "body"})).json()
    old = {"refresh_token": tokens["refresh_token"]}
    new = {(await client.post(f"{API}/refresh", json=old)).json()["refresh_token"] for _ in range(3)}
    assert len(new) == 1
    assert (await client.post(f"{API}/refresh", json={"refresh_token": new.pop()})).status_code == 200
    answer = await client.post(f"{API}/refresh", json=old)
    assert (answer.status_code, answer.json()["code"]) == (401, "refresh_superseded")


async def test_readiness_lists_its_checks(client: httpx.AsyncClient) -> None:
    """The checks database, redis and storage are up; signing_keys is shown only while the keys cannot be read."""
    answer = await client.get("/api/v1/readiness")
    report = answer.json()
    assert (answer.status_code, report["status"]) == (200, "ready"), report
    assert {name: check["status"] for name, check in report["checks"].items()} == {
        "database": "up",
        "redis": "up",
        "storage": "up",
    }


async def test_metrics_count_by_route_template(client: httpx.AsyncClient) -> None:
    """Routes are labelled with their complete path, unknown paths with one label; packages have their own metrics."""
    await client.get(f"{API}/me")
    await client.get("/nowhere/at/all")
    metrics = (await client.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/v1/auth/me",status="401"} 1.0' in metrics
    assert 'http_requests_total{method="GET",route="__unmatched__",status="404"} 1.0' in metrics
    assert "db_pool_limit 15.0" in metrics
    assert "auth_hashing_pending" in metrics


async def test_every_answer_carries_the_correlation_id(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses 200, 404, 413, 422 and 500 have the header, and problem documents contain the id."""

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret cause")

    monkeypatch.setattr(type(app.state.auth.login), "with_password", fail)
    mine = {"X-Correlation-ID": "trace-1"}
    answers = [
        await client.get("/api/v1/health", headers=mine),
        await client.get("/nowhere", headers=mine),
        await client.post(f"{API}/login", content=b" " * 100_000, headers=mine),
        await client.post(f"{API}/login", json={}, headers=mine),
        await client.post(f"{API}/login", json=GOOD, headers=mine),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 413, 422, 500]
    assert {answer.headers["x-correlation-id"] for answer in answers} == {"trace-1"}
    assert {answer.json()["correlation_id"] for answer in answers[1:]} == {"trace-1"}
    assert "secret cause" not in answers[-1].text


async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient) -> None:
    """Responses 200, 404 and 413 carry nosniff, no-referrer, a strict policy, and HSTS outside of local."""
    answers = [
        await client.get("/api/v1/health"),
        await client.get("/nowhere"),
        await client.post(f"{API}/login", content=b" " * 100_000),
    ]
    for headers in (answer.headers for answer in answers):
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "max-age=" in headers["strict-transport-security"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_docs_pages_have_their_own_content_security_policy(client: httpx.AsyncClient, page: str) -> None:
    """The docs pages are served with a policy that allows our scripts, and with the other security headers."""
    answer = await client.get(page)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await client.get("/openapi.json")).json()["openapi"].startswith("3.1")


async def test_the_public_keys_verify_what_login_signs(
    client: httpx.AsyncClient, deliver_mails: Callable[[], Awaitable[list[Mail]]]
) -> None:
    """The key set contains the token's key with public members only, so another service can verify tokens."""
    await sign_up(client, deliver_mails)
    token = (await client.post(f"{API}/login", json=GOOD)).json()["access_token"]
    keys = (await client.get("/.well-known/jwks.json")).json()
    assert keys["keys"]
    assert not any({"d", "p", "q", "k"} & key.keys() for key in keys["keys"])
    by_id = {key.key_id: key for key in jwt.PyJWKSet.from_dict(keys).keys}
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, by_id[header["kid"]], algorithms=["ES256"], audience="tequipy")
    assert (header["typ"], claims["iss"]) == ("at+jwt", "https://app.example.com")


def test_the_app_is_built_without_any_server(settings: ApiSettings) -> None:
    """`create_app` opens no connection, so it works while all servers are unreachable."""
    nowhere = {
        "database": {"url": "postgresql+asyncpg://nobody@127.0.0.1:1/none"},
        "cache": {"url": "redis://127.0.0.1:1/0"},
    }
    create_app(ApiSettings.model_validate(settings.model_dump() | nowhere))


def test_any_asgi_server_may_serve_it(settings: ApiSettings) -> None:
    """`tequipy_api.main:app` is the app with the settings of the environment."""
    app = importlib.import_module("tequipy_api.main").app
    assert isinstance(app, FastAPI)
    assert app.title == settings.app_name


def test_the_api_does_not_import_celery() -> None:
    """Importing the app does not import Celery, because the API never connects to the broker."""
    code = "import sys, tequipy_api.app; sys.exit(bool({'celery', 'kombu'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

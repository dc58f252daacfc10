"""Guards of auth's routes apply to the matched route: under any prefix and any spelling of the path."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from tequipy_auth.api import wire_auth
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import SystemClock

from .limited_app import build_limited_app

LARGE = b'{"x": "' + b"x" * 65 * 1024 + b'"}'


def build_app(prefix: str) -> FastAPI:
    return build_limited_app(MemoryAuthUnitOfWork(SystemClock()), prefix=prefix)


def mount(prefix: str) -> FastAPI:
    """Return the app mounted below a path of another app."""
    outer = FastAPI()
    outer.mount("/outer/app", build_app(prefix))
    return outer


PLACES = [
    pytest.param(lambda: build_app("/api/v1/auth"), "/api/v1/auth", "", id="usual"),
    pytest.param(lambda: build_app("/accounts"), "/accounts", "", id="foreign prefix"),
    pytest.param(lambda: build_app(""), "", "", id="no prefix"),
    pytest.param(lambda: mount("/api/v1/auth"), "/outer/app/api/v1/auth", "", id="mounted"),
    pytest.param(lambda: build_app("/accounts"), "/svc/accounts", "/svc", id="root path"),
]


@pytest.mark.parametrize(("build", "prefix", "root_path"), PLACES)
async def test_guards_hold_under_any_prefix(build: Callable[[], FastAPI], prefix: str, root_path: str) -> None:
    """Rate policy, body limit and no-store belong to the route under any prefix, also for 405."""
    transport = httpx.ASGITransport(build(), root_path=root_path)
    json = {"content-type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
        login = await client.post(f"{prefix}/login", json={})
        wrong_method = await client.put(f"{prefix}/login", json={})
        large = await client.post(f"{prefix}/login", content=LARGE, headers=json)
        own = await client.get(f"{prefix}/me")
        keys = await client.get(
            f"{prefix.removesuffix('/accounts').removesuffix('/api/v1/auth')}/.well-known/jwks.json"
        )
    assert [login.status_code, wrong_method.status_code, large.status_code] == [422, 405, 413]
    for answer in (login, wrong_method, large):
        assert answer.headers["ratelimit-policy"] == '"login";q=60;w=60'
        assert answer.headers["cache-control"] == "no-store"
    assert own.headers["ratelimit-policy"] == '"default";q=600;w=60'
    assert own.headers["cache-control"] == "no-store"
    assert keys.status_code == 200
    assert "ratelimit-policy" not in keys.headers


def test_an_app_without_no_store_is_refused() -> None:
    """Auth cannot be wired to an app whose responses with tokens could be cached."""
    with pytest.raises(RuntimeError, match="NoStore"):
        wire_auth(FastAPI(), build_fake_auth())


@pytest.mark.parametrize("odd", ["%0A", "%0D%0A", "%00", "%09", "%7F", "%C2%85", "/%0A", "%2F%0A"])
async def test_a_control_character_bypasses_no_guard(odd: str) -> None:
    """A login path that ends with a control character gets 404."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(build_app("/api/v1/auth")), base_url="https://app.example.com"
    ) as client:
        answer = await client.post(f"/api/v1/auth/login{odd}", json={"email": "a@example.com", "password": "x" * 12})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

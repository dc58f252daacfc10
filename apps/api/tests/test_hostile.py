"""Responses of the shipped app to hostile and broken clients follow the contract and repeat no input."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LOGIN = "/api/v1/auth/login"
JSON = {"content-type": "application/json"}
SECRET = "Tr0ub4dor & 3"
POSTS = ("register", "verify-email", "login", "refresh", "logout")


def check(answer: httpx.Response) -> dict[str, Any]:
    """Return the problem document of a valid error response, or an empty one for a success."""
    assert answer.status_code < 500, answer.text
    assert SECRET not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    if answer.is_success:
        return {}
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:tequipy:problem:{problem['code']}"
    assert problem["correlation_id"] == answer.headers["x-correlation-id"]
    if problem["code"] == "validation_failed":
        assert all(error.keys() == {"pointer", "code", "detail"} for error in problem["errors"])
        assert problem["errors"]
    return problem


def credentials(value: str) -> bytes:
    """Return the body of a login whose password is this piece of JSON."""
    return b'{"email": "ada@example.com", "password": ' + value.encode() + b"}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(credentials('"\\u0000"'), 422, "validation_failed", id="NUL"),
        pytest.param(credentials('"\\ud800"'), 422, "validation_failed", id="lone surrogate"),
        pytest.param(credentials("NaN"), 400, "malformed_body", id="NaN"),
        pytest.param(credentials("-Infinity"), 400, "malformed_body", id="Infinity"),
        pytest.param(credentials("1" * 5_000), 400, "malformed_body", id="5,000 digits"),
        pytest.param(b"[" * 60_000, 400, "malformed_body", id="60,000 deep"),
        pytest.param(b"[" * 200_000, 413, "body_too_large", id="200,000 deep"),
        pytest.param(credentials('"x"').decode().encode("utf-16"), 400, "malformed_body", id="UTF-16"),
        pytest.param(credentials('"x"') + b"\xff", 400, "malformed_body", id="invalid UTF-8"),
        pytest.param(b'{"email": "\xed\xa0\x80", "password": "x"}', 422, "validation_failed", id="its bytes"),
        pytest.param(credentials('{"a key": {"b": [1]}}'), 422, "validation_failed", id="dictionary"),
        pytest.param(credentials('"x", "roles": ["admin"]'), 422, "validation_failed", id="unknown field"),
        pytest.param(credentials(f'["{SECRET}"]'), 422, "validation_failed", id="planted secret"),
        pytest.param(credentials(f'"x", "{SECRET}": "{SECRET}"'), 422, "validation_failed", id="secret as a name"),
    ],
)
async def test_malformed_bodies_give_client_errors(
    client: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    """Each malformed body gives the status of the contract, with texts that repeat nothing."""
    answer = await client.post(LOGIN, content=body, headers=JSON)
    assert (answer.status_code, check(answer)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("request_line", "status", "code", "headers"),
    [
        ("GET /api/v1/auth/nothing", 404, "not_found", {}),
        (f"GET {LOGIN}", 405, "method_not_allowed", {"allow": "POST"}),
        (f"OPTIONS {LOGIN}", 405, "method_not_allowed", {"allow": "POST"}),
        (f"BREW {LOGIN}", 405, "method_not_allowed", {"allow": "POST"}),
        ("GET /api/v1/auth/me?x=%00", 422, "validation_failed", {}),
        ("GET /api/v1/auth/%00", 404, "not_found", {}),
        (f"POST {LOGIN}%0A", 404, "not_found", {}),
        (f"POST {LOGIN}%0D", 404, "not_found", {}),
        (f"POST {LOGIN}%7F", 404, "not_found", {}),
        (f"POST {LOGIN}%C2%85", 404, "not_found", {}),
        ("POST /api/v1/auth/log%09in", 404, "not_found", {}),
        ("GET /api/v1/auth/me", 401, "unauthenticated", {"www-authenticate": "Bearer"}),
    ],
)
async def test_malformed_requests_have_their_status(
    client: httpx.AsyncClient, request_line: str, status: int, code: str, headers: dict[str, str]
) -> None:
    """Unknown routes, wrong methods and NUL give the right status, code and headers."""
    answer = await client.request(*request_line.split())
    assert (answer.status_code, check(answer)["code"]) == (status, code)
    assert headers.items() <= dict(answer.headers).items()


async def test_routes_allow_only_the_methods_of_the_contract(client: httpx.AsyncClient) -> None:
    """HEAD gives 405 without content, and `Allow` lists the methods of the contract."""
    answer = await client.head("/api/v1/auth/me")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "DELETE, GET, PATCH")


async def test_logging_out_has_no_content_and_no_type(client: httpx.AsyncClient) -> None:
    """A 204 has no content and no content type."""
    answer = await client.post("/api/v1/auth/logout", json={})
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


async def test_a_superfluous_slash_is_redirected_with_method_and_body(client: httpx.AsyncClient) -> None:
    """A superfluous slash gives 307, which keeps method and body, on any host."""
    answer = await client.post(f"{LOGIN}/?a=b", json={}, follow_redirects=True)
    (redirect,) = answer.history
    assert (redirect.status_code, redirect.headers["location"]) == (307, "../login?a=b")
    assert (answer.status_code, check(answer)["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("announced", [True, False])
async def test_auth_routes_take_64_kib(client: httpx.AsyncClient, announced: bool) -> None:
    """A body over the limit gives 413, with or without a length; one at the limit passes."""

    async def send(size: int) -> int:
        whole = credentials(f'"{"x" * (size - len(credentials("")) - 2)}"')
        assert len(whole) == size

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, size, 4096):
                yield whole[start : start + 4096]

        answer = await client.post(LOGIN, content=whole if announced else pieces(), headers=JSON)
        check(answer)
        return answer.status_code

    assert [await send(64 * 1024), await send(64 * 1024 + 1)] == [422, 413]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text() | st.just(SECRET), children, max_size=4)
    ),
    max_leaves=12,
)
field_names = st.sampled_from(["email", "password", "name", "token", "token_delivery", "refresh_token"])
bodies = (
    st.dictionaries(field_names, json_values, max_size=6).map(json.dumps).map(str.encode)
    | json_values.map(json.dumps).map(str.encode)
    | st.binary(max_size=200)
    | st.just(SECRET.encode())
)
content_types = st.sampled_from(
    [
        "application/json",
        "application/problem+json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/x",
        "",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(POSTS), body=bodies, content_type=content_types)
async def test_no_body_breaks_or_is_echoed(
    client: httpx.AsyncClient, route: str, body: bytes, content_type: str
) -> None:
    """No body causes a server error, and no response violates the contract or contains a secret of the body."""
    headers = {"content-type": content_type} if content_type else {}
    check(await client.post(f"/api/v1/auth/{route}", content=body, headers=headers))


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/auth/me", "/api/v1/auth/sessions"])
async def test_two_authorization_headers_are_ambiguous(client: httpx.AsyncClient, path: str) -> None:
    """Every route that reads the header refuses two of them with 400 `ambiguous_credentials`."""
    answer = await client.get(path, headers=[("Authorization", "Bearer a"), ("Authorization", "Bearer b")])
    assert (answer.status_code, answer.json()["code"]) == (400, "ambiguous_credentials")

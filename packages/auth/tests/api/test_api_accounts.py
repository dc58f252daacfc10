"""Registration, verification, the own account and the public keys over HTTP."""

import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tequipy_auth import Auth, Role
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_observability import RequestContext, current_context, request_context
from tequipy_platform import Unavailable

from .routes import GOOD


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Return the problem document of an uncacheable response with this status and code."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document: dict[str, object] = answer.json()
    return document


async def test_registering_answers_alike_for_a_new_and_a_known_address(
    client: httpx.AsyncClient, make_user: Callable[[], Awaitable[None]]
) -> None:
    """A registration does not reveal whether the address has an account."""
    new = await client.post("/api/v1/auth/register", json=GOOD)
    await make_user()
    known = await client.post("/api/v1/auth/register", json=GOOD)
    assert (new.status_code, new.json()) == (202, {"status": "accepted"})
    assert (known.status_code, known.content) == (new.status_code, new.content)
    assert new.headers["cache-control"] == "no-store"


async def test_account_responses_are_not_cached(client: httpx.AsyncClient) -> None:
    """Responses of auth's routes and all errors have `no-store`; the public keys can be cached."""
    paths = ("/api/v1/auth/me", "/api/v1/auth/login", "/api/v1/auth/nothing", "/nowhere")
    answers = [await client.get(path) for path in paths]
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store"] * 4
    accepted = await client.post("/api/v1/auth/password/forgot", json={"email": "ada@example.com"})
    assert (accepted.status_code, accepted.headers["cache-control"]) == (202, "no-store")
    assert (await client.get("/.well-known/jwks.json")).headers["cache-control"] == "public, max-age=300"


async def test_a_weak_password_is_refused_with_its_reasons(client: httpx.AsyncClient) -> None:
    """A member of the problem document contains every reason."""
    answer = await client.post("/api/v1/auth/register", json={"email": "ada@example.com", "password": "ada"})
    assert problem(answer, 422, "weak_password")["reasons"] == ["too_short", "matches_email"]


async def test_a_bad_address_names_its_field(client: httpx.AsyncClient) -> None:
    """An invalid address is a validation error of `/email`."""
    answer = await client.post("/api/v1/auth/register", json=GOOD | {"email": "ada at example"})
    errors = problem(answer, 422, "validation_failed")["errors"]
    assert isinstance(errors, list)
    assert [error["pointer"] for error in errors] == ["/email"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", 7),
        ("email", "a" * 321),
        ("email", "ada\0@example.com"),
        ("password", None),
        ("password", "x" * 1025),
        ("password", "correct horse\0battery staple"),
        ("password", "correct horse battery \ud800"),
        ("name", ""),
        ("name", "   "),
        ("name", "x" * 101),
        ("name", "x" * 100 + " "),
        ("name", "\u3000"),
        ("name", "Ada\nLovelace"),
        ("name", "Ada\x85Lovelace"),
        ("name", "Ada \udfff"),
        ("name", "\nAda"),
        ("name", "Ada \u202ecorp"),
        ("name", "\u200bAda"),
        ("name", "Ada\u2069 "),
        ("roles", ["admin"]),
    ],
)
async def test_a_bad_field_is_named_and_not_echoed(client: httpx.AsyncClient, field: str, value: object) -> None:
    """Invalid values get 422 with a pointer to the field, or to the object for an unknown field.

    The response never contains the value, nor the name of an unknown field, which the sender chose.
    """
    # The body is written by hand, because httpx cannot encode lone surrogates.
    content = json.dumps(GOOD | {field: value})
    answer = await client.post("/api/v1/auth/register", content=content, headers={"Content-Type": "application/json"})
    document = problem(answer, 422, "validation_failed")
    assert isinstance(document["errors"], list)
    pointer = "" if field == "roles" else f"/{field}"
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert GOOD["password"] not in answer.text
    assert not isinstance(value, str) or not value.strip() or json.dumps(value) not in answer.text


async def test_a_huge_password_is_refused_before_it_is_hashed(
    client: httpx.AsyncClient, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password of 60 KiB does not reach the service, and one of a MiB does not reach the parser."""
    monkeypatch.setattr(type(auth.registration), "register", None)
    monkeypatch.setattr(type(auth.login), "with_password", None)
    for route in ("register", "login"):
        answer = await client.post(f"/api/v1/auth/{route}", json=GOOD | {"password": "x" * 60 * 1024})
        problem(answer, 422, "validation_failed")
        answer = await client.post(f"/api/v1/auth/{route}", json=GOOD | {"password": "x" * 1024 * 1024})
        problem(answer, 413, "body_too_large")


async def test_a_user_agent_is_shown_without_invisible_characters(client: httpx.AsyncClient, access_token: str) -> None:
    """The list of sessions shows user agents without control characters of Latin-1."""
    headers = {b"User-Agent": b"Fire\xadfox \x85115", b"Authorization": f"Bearer {access_token}".encode()}
    await client.post("/api/v1/auth/login", json=GOOD, headers=headers)
    sessions = (await client.get("/api/v1/auth/sessions", headers=headers)).json()["items"]
    assert "Firefox 115" in {session["user_agent"] for session in sessions}


async def test_names_are_trimmed(client: httpx.AsyncClient, verify: Callable[[], Awaitable[None]]) -> None:
    """Outer spaces of a name are removed."""
    await client.post("/api/v1/auth/register", json=GOOD | {"name": "  Ada Lovelace "})
    await verify()
    access = (await client.post("/api/v1/auth/login", json=GOOD)).json()["access_token"]
    me = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access}"})
    assert me.json()["name"] == "Ada Lovelace"


@pytest.mark.parametrize("route", ["register", "verify-email", "login", "refresh", "logout"])
@pytest.mark.parametrize("form", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_forms_are_refused(client: httpx.AsyncClient, route: str, form: str) -> None:
    """Content types of HTML forms get 415 on every route, with and without a body."""
    for content in (b"a=b", b""):
        answer = await client.post(f"/api/v1/auth/{route}", content=content, headers={"Content-Type": form})
        problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"{", b'{"email": NaN}', "{}".encode("utf-16"), b"\xff", b"[" * 60_000])
async def test_a_body_that_is_no_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    """Broken JSON, NaN, UTF-16, invalid UTF-8 and too deep nesting get 400."""
    answer = await client.post("/api/v1/auth/login", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 400, "malformed_body")


async def test_the_mailed_token_creates_the_account_once(
    client: httpx.AsyncClient, mailed_token: Callable[[], Awaitable[str]]
) -> None:
    """The link gets 204 once; a second use or any other token gets 400 `token_invalid`."""
    await client.post("/api/v1/auth/register", json=GOOD)
    token = await mailed_token()
    answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    for bad in (token, token[:-1] + ("A" if token[-1] != "A" else "B"), "", "ev1..", "rt1" + token[3:]):
        problem(await client.post("/api/v1/auth/verify-email", json={"token": bad}), 400, "token_invalid")


async def test_me_shows_the_own_account(client: httpx.AsyncClient, access_token: str) -> None:
    """The response has exactly the fields of the contract, with the roles and permissions of the caller."""
    answer = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    me = answer.json()
    assert me.keys() == {"id", "email", "email_verified", "name", "roles", "permissions", "created_at"}
    assert (me["email"], me["email_verified"], me["roles"]) == ("ada@example.com", True, ["admin"])
    assert "users:write" in me["permissions"]
    assert me["created_at"].endswith("Z")


async def test_me_follows_the_role_map(
    client: httpx.AsyncClient, auth: Auth, access_token: str, work: MemoryAuthUnitOfWork
) -> None:
    """A change of a role's permissions takes effect although the profile is cached."""
    (user_id,) = work.users.rows
    await work.users.set_roles(user_id, ("support",))
    headers = {"Authorization": f"Bearer {access_token}"}
    await client.get("/api/v1/auth/me", headers=headers)
    await auth.roles.define(Role("support", ("users:read",)))
    assert (await client.get("/api/v1/auth/me", headers=headers)).json()["permissions"] == ["users:read"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi"])
async def test_a_missing_bearer_token_is_unauthenticated(client: httpx.AsyncClient, header: str | None) -> None:
    """A missing token or another scheme gets `unauthenticated` with a bare challenge (RFC 6750, section 3)."""
    answer = await client.get("/api/v1/auth/me", headers={} if header is None else {"Authorization": header})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["x", "a.b.c", "é", "x" * 9000, "two words"])
async def test_an_invalid_bearer_token_is_distinguished(client: httpx.AsyncClient, token: str) -> None:
    """An unknown token gets `invalid_token` in the document and in the challenge."""
    answer = await client.get("/api/v1/auth/me", headers={b"Authorization": f"Bearer {token}".encode("latin-1")})
    problem(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_the_caller_becomes_part_of_the_context(client: httpx.AsyncClient, access_token: str) -> None:
    """The request context, and so every log line, contains the caller's id."""
    with request_context(RequestContext()):
        me = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access_token}"})
        assert current_context().user_id == me.json()["id"]


async def test_the_public_keys_may_be_cached(client: httpx.AsyncClient) -> None:
    """The key set can be cached for five minutes; with a fake it is empty."""
    answer = await client.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})
    assert answer.headers["cache-control"] == "public, max-age=300"


async def test_unknown_routes_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    """404 and 405 below the prefix are problem documents and are not cached."""
    problem(await client.get("/api/v1/auth/nothing"), 404, "not_found")
    answer = await client.get("/api/v1/auth/login")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_unavailable_is_503(client: httpx.AsyncClient, auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `Unavailable` of a service becomes 503 with `Retry-After`."""

    async def away(*_: object, **__: object) -> None:
        raise Unavailable(retry_after=2.5)

    monkeypatch.setattr(type(auth.login), "with_password", away)
    answer = await client.post("/api/v1/auth/login", json=GOOD)
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "3"

"""Registering, verifying, the own account and the public keys, over HTTP."""

import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tequipy_auth import Auth, Role
from tequipy_observability import RequestContext, current_context, request_context
from tequipy_platform import Unavailable

GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Return the problem document of an answer that has this status and code, and is kept by no cache."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document: dict[str, object] = answer.json()
    return document


async def test_registering_answers_alike_for_a_new_and_a_known_address(
    client: httpx.AsyncClient, make_user: Callable[[], Awaitable[None]]
) -> None:
    """Who registers learns nothing about who has an account."""
    new = await client.post("/api/v1/auth/register", json=GOOD)
    await make_user()
    known = await client.post("/api/v1/auth/register", json=GOOD)
    assert (new.status_code, new.json()) == (202, {"status": "accepted"})
    assert (known.status_code, known.content) == (new.status_code, new.content)
    assert new.headers["cache-control"] == "no-store"


async def test_answers_about_accounts_are_kept_by_no_cache(client: httpx.AsyncClient) -> None:
    """Auth's own routes say so, and every error does; the public keys are for everybody to keep."""
    paths = ("/api/v1/auth/me", "/api/v1/auth/login", "/api/v1/auth/nothing", "/nowhere")
    answers = [await client.get(path) for path in paths]
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store"] * 4
    accepted = await client.post("/api/v1/auth/password/forgot", json={"email": "ada@example.com"})
    assert (accepted.status_code, accepted.headers["cache-control"]) == (202, "no-store")
    assert (await client.get("/.well-known/jwks.json")).headers["cache-control"] == "public, max-age=300"


async def test_a_weak_password_is_refused_with_its_reasons(client: httpx.AsyncClient) -> None:
    """Every reason is told at once, in a member of the problem document."""
    answer = await client.post("/api/v1/auth/register", json={"email": "ada@example.com", "password": "ada"})
    assert problem(answer, 422, "weak_password")["reasons"] == ["too_short", "matches_email"]


async def test_a_bad_address_names_its_field(client: httpx.AsyncClient) -> None:
    """An address that is none is a validation error of `/email`."""
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
    """Wrong types, lengths, NUL, lone surrogates, invisible characters and unknown fields are 422 with a pointer.

    That of an unknown field is the object's: its name is the sender's.
    """
    # By hand: httpx would not write lone surrogates, an attacker does.
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
    """A password of 60 KiB (these routes take bodies of 64) reaches no service; one of a MiB not even a parser."""
    monkeypatch.setattr(type(auth.registration), "register", None)
    monkeypatch.setattr(type(auth.login), "with_password", None)
    for route in ("register", "login"):
        answer = await client.post(f"/api/v1/auth/{route}", json=GOOD | {"password": "x" * 60 * 1024})
        problem(answer, 422, "validation_failed")
        answer = await client.post(f"/api/v1/auth/{route}", json=GOOD | {"password": "x" * 1024 * 1024})
        problem(answer, 413, "body_too_large")


async def test_a_user_agent_is_shown_without_invisible_characters(client: httpx.AsyncClient, access_token: str) -> None:
    """What a client calls itself is shown in the list of sessions: control characters of Latin-1 are left out."""
    headers = {b"User-Agent": b"Fire\xadfox \x85115", b"Authorization": f"Bearer {access_token}".encode()}
    await client.post("/api/v1/auth/login", json=GOOD, headers=headers)
    sessions = (await client.get("/api/v1/auth/sessions", headers=headers)).json()["items"]
    assert "Firefox 115" in {session["user_agent"] for session in sessions}


async def test_names_are_trimmed(client: httpx.AsyncClient, verify: Callable[[], Awaitable[None]]) -> None:
    """Outer spaces of a name are no part of it."""
    await client.post("/api/v1/auth/register", json=GOOD | {"name": "  Ada Lovelace "})
    await verify()
    access = (await client.post("/api/v1/auth/login", json=GOOD)).json()["access_token"]
    me = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access}"})
    assert me.json()["name"] == "Ada Lovelace"


@pytest.mark.parametrize("route", ["register", "verify-email", "login", "refresh", "logout"])
@pytest.mark.parametrize("form", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_forms_are_refused(client: httpx.AsyncClient, route: str, form: str) -> None:
    """What a page of any site can post without asking is 415 on every route, with a body or without."""
    for content in (b"a=b", b""):
        answer = await client.post(f"/api/v1/auth/{route}", content=content, headers={"Content-Type": form})
        problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"{", b'{"email": NaN}', "{}".encode("utf-16"), b"\xff", b"[" * 60_000])
async def test_a_body_that_is_no_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    """Broken JSON, NaN, UTF-16, invalid UTF-8 and bottomless nesting are 400."""
    answer = await client.post("/api/v1/auth/login", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 400, "malformed_body")


async def test_the_mailed_token_makes_the_account_once(
    client: httpx.AsyncClient, mailed_token: Callable[[], Awaitable[str]]
) -> None:
    """The link verifies the address with 204; a second time, or with anything else, it is 400 `token_invalid`."""
    await client.post("/api/v1/auth/register", json=GOOD)
    token = await mailed_token()
    answer = await client.post("/api/v1/auth/verify-email", json={"token": token})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    for bad in (token, token[:-1] + ("A" if token[-1] != "A" else "B"), "", "ev1..", "rt1" + token[3:]):
        problem(await client.post("/api/v1/auth/verify-email", json={"token": bad}), 400, "token_invalid")


async def test_me_shows_the_own_account(client: httpx.AsyncClient, access_token: str) -> None:
    """Exactly the fields of the contract, with the caller's roles and what they permit."""
    answer = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    me = answer.json()
    assert me.keys() == {"id", "email", "email_verified", "name", "roles", "permissions", "created_at"}
    assert (me["email"], me["email_verified"], me["roles"]) == ("ada@example.com", True, ["admin"])
    assert "users:write" in me["permissions"]
    assert me["created_at"].endswith("Z")


async def test_me_follows_the_role_map(client: httpx.AsyncClient, auth: Auth, access_token: str) -> None:
    """What a role permits from now on is what its holders see, whatever their profile had been read with."""
    headers = {"Authorization": f"Bearer {access_token}"}
    await client.get("/api/v1/auth/me", headers=headers)
    await auth.roles.define(Role("admin", ("users:read",)))
    assert (await client.get("/api/v1/auth/me", headers=headers)).json()["permissions"] == ["users:read"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi"])
async def test_without_a_bearer_token_nobody_is_known(client: httpx.AsyncClient, header: str | None) -> None:
    """A missing token, or another scheme, is `unauthenticated` with a bare challenge (RFC 6750, section 3)."""
    answer = await client.get("/api/v1/auth/me", headers={} if header is None else {"Authorization": header})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["x", "a.b.c", "é", "x" * 9000, "two words"])
async def test_a_bad_bearer_token_is_told_apart(client: httpx.AsyncClient, token: str) -> None:
    """A token that is none of ours is `invalid_token`, in the document and in the challenge."""
    answer = await client.get("/api/v1/auth/me", headers={b"Authorization": f"Bearer {token}".encode("latin-1")})
    problem(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_the_caller_becomes_part_of_the_context(client: httpx.AsyncClient, access_token: str) -> None:
    """Logs and whatever else reads the request context know who asked."""
    with request_context(RequestContext()):
        me = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access_token}"})
        assert current_context().user_id == me.json()["id"]


async def test_the_public_keys_may_be_cached(client: httpx.AsyncClient) -> None:
    """The key set is public for five minutes (a fake signs nothing, so here it is empty)."""
    answer = await client.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})
    assert answer.headers["cache-control"] == "public, max-age=300"


async def test_unknown_routes_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    """404 and 405 below the prefix have the shape of every other error, and are not cached either."""
    problem(await client.get("/api/v1/auth/nothing"), 404, "not_found")
    answer = await client.get("/api/v1/auth/login")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_what_is_away_is_503(client: httpx.AsyncClient, auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `Unavailable` of a service becomes 503 that says when to try again."""

    async def away(*_: object, **__: object) -> None:
        raise Unavailable(retry_after=2.5)

    monkeypatch.setattr(type(auth.login), "with_password", away)
    answer = await client.post("/api/v1/auth/login", json=GOOD)
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "3"

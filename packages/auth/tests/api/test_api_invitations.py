"""The routes of invitations, with their idempotency keys, and registration by invitation alone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from tequipy_auth import Auth, Role
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth

from .conftest import OWN_ORIGINS, serve
from .routes import AUTH, GOOD, LOGIN, ME, bearer, code_of, log_in

INVITATIONS, ACCEPT, REGISTER = "/api/v1/users/invitations", f"{AUTH}/accept-invitation", f"{AUTH}/register"
NEWCOMER = {"email": "grace@example.com"}
KEY = {"Idempotency-Key": "0f3d5c9e-6f0b-4a53-9d0a-2f7f8f1f6a4e"}
ACCEPTED = (202, {"status": "accepted"})


@pytest.fixture
async def admin(make_user: Callable[[], Awaitable[None]], client: httpx.AsyncClient) -> dict[str, str]:
    """The header of an administrator."""
    await make_user()
    return bearer(await log_in(client))


async def sign_in(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    return bearer(await client.post(LOGIN, json=GOOD | {"email": email, "token_delivery": "body"}))


async def make_account(auth: Auth, work: MemoryAuthUnitOfWork, email: str, role: str) -> None:
    await auth.registration.create_admin(email=email, password=GOOD["password"])
    (user,) = [user for user in work.users.rows.values() if user.email.canonical == email]
    await work.users.set_roles(user.id, (role,))


async def test_a_person_is_invited_and_accepts(
    client: httpx.AsyncClient, admin: dict[str, str], mailed_token: Callable[[], Awaitable[str]]
) -> None:
    """The mailed token and a password create an account, which can log in; the invitation is open until then."""
    answer = await client.post(INVITATIONS, headers=admin, json=NEWCOMER | {"roles": ["user", "support"]})
    assert (answer.status_code, answer.json()) == ACCEPTED
    assert answer.headers["cache-control"] == "no-store"
    (item,) = (await client.get(INVITATIONS, headers=admin)).json()["items"]
    own = (await client.get(ME, headers=admin)).json()["id"]
    assert (item["email"], item["roles"], item["invited_by"]) == (NEWCOMER["email"], ["support", "user"], own)
    body = {"token": await mailed_token(), "password": GOOD["password"], "name": "Grace"}
    answer = await client.post(ACCEPT, json=body | {"password": "short"})
    assert code_of(answer, 422) == "weak_password"
    answer = await client.post(ACCEPT, json=body)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "set-cookie" not in answer.headers
    me = (await client.get(ME, headers=await sign_in(client, NEWCOMER["email"]))).json()
    assert (me["email_verified"], me["roles"], me["name"]) == (True, ["support", "user"], "Grace")
    assert (await client.get(INVITATIONS, headers=admin)).json()["items"] == []
    assert code_of(await client.post(ACCEPT, json=body), 400) == "token_invalid"


async def test_known_addresses_get_the_same_response(
    client: httpx.AsyncClient, admin: dict[str, str], work: MemoryAuthUnitOfWork
) -> None:
    """The response, the rows and the message are alike for an address with an account and one without."""
    shapes = []
    for email in (GOOD["email"], NEWCOMER["email"]):
        before = len(work.invitations.rows), len(work.outbox.tasks), len(work.audit.rows)
        answer = await client.post(INVITATIONS, headers=admin, json={"email": email})
        after = len(work.invitations.rows), len(work.outbox.tasks), len(work.audit.rows)
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        added = tuple(now - then for now, then in zip(after, before, strict=True))
        shapes.append((answer.status_code, headers, answer.content, added))
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == 202


async def test_invitations_are_paged_and_deleted(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """Pages show the newest first; a deleted invitation is gone, and deleting it again is 404."""
    for number in range(3):
        await client.post(INVITATIONS, headers=admin, json={"email": f"p{number}@example.com"})
    page = (await client.get(INVITATIONS, headers=admin, params={"limit": 2})).json()
    assert [item["email"] for item in page["items"]] == ["p2@example.com", "p1@example.com"]
    rest = (await client.get(INVITATIONS, headers=admin, params={"cursor": page["next_cursor"]})).json()
    assert ([item["email"] for item in rest["items"]], rest["next_cursor"]) == (["p0@example.com"], None)
    url = f"{INVITATIONS}/{rest['items'][0]['id']}"
    assert (await client.delete(url, headers=admin)).status_code == 204
    assert code_of(await client.delete(url, headers=admin), 404) == "not_found"
    assert len((await client.get(INVITATIONS, headers=admin)).json()["items"]) == 2


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"email": "no address"}, "invalid_email", "/email"),
        (NEWCOMER | {"roles": ["ghost"]}, "unknown_role", "/roles"),
        (NEWCOMER | {"roles": ["A B"]}, "string_pattern_mismatch", "/roles/0"),
        (NEWCOMER | {"role": "admin"}, "extra_forbidden", ""),
    ],
)
async def test_wrong_invitations_are_refused(
    client: httpx.AsyncClient, admin: dict[str, str], body: dict[str, object], code: str, pointer: str
) -> None:
    """An invalid address, an unknown role and an unknown field are 422."""
    answer = await client.post(INVITATIONS, headers=admin, json=body)
    assert code_of(answer, 422) == "validation_failed"
    assert [(error["code"], error["pointer"]) for error in answer.json()["errors"]] == [(code, pointer)]


async def test_who_may_invite(auth: Auth, work: MemoryAuthUnitOfWork, client: httpx.AsyncClient) -> None:
    """`users:write` is needed to invite and delete, `users:read` to see; nobody gives a permission that they lack."""
    await auth.roles.define(Role("inviter", ("users:write",)))
    for role in ("user", "support", "inviter"):
        await make_account(auth, work, f"{role}@example.com", role)
    allowed = {"user": (403, 403), "support": (200, 403), "inviter": (403, 202)}
    for role, statuses in allowed.items():
        headers = await sign_in(client, f"{role}@example.com")
        page = await client.get(INVITATIONS, headers=headers)
        made = await client.post(INVITATIONS, headers=headers | KEY, json=NEWCOMER)
        assert (page.status_code, made.status_code) == statuses, role
    headers = await sign_in(client, "inviter@example.com")
    for roles in (["admin"], ["support"], ["user", "support"]):
        answer = await client.post(INVITATIONS, headers=headers, json=NEWCOMER | {"roles": roles})
        assert code_of(answer, 403) == "forbidden"
    assert [row.roles for row in work.invitations.rows.values()] == [("user",)]
    (invitation,) = work.invitations.rows.values()
    support = await sign_in(client, "support@example.com")
    assert code_of(await client.delete(f"{INVITATIONS}/{invitation.id}", headers=support), 403) == "forbidden"
    for answer in (await client.get(INVITATIONS), await client.post(INVITATIONS, json=NEWCOMER)):
        assert code_of(answer, 401) == "unauthenticated"


async def test_changes_need_a_recent_login(
    client: httpx.AsyncClient, admin: dict[str, str], work: MemoryAuthUnitOfWork
) -> None:
    """Five minutes after the login, inviting and deleting are 401 `reauth_required`, with a used key too."""
    assert (await client.post(INVITATIONS, headers=admin | KEY, json=NEWCOMER)).status_code == 202
    (invitation,) = work.invitations.rows.values()
    for session_id, session in list(work.sessions.rows.items()):
        work.sessions.rows[session_id] = replace(session, auth_time=session.auth_time - timedelta(minutes=5))
    for answer in (
        await client.post(INVITATIONS, headers=admin | KEY, json=NEWCOMER),
        await client.delete(f"{INVITATIONS}/{invitation.id}", headers=admin),
    ):
        assert code_of(answer, 401) == "reauth_required"


async def test_a_repeated_request_invites_once(
    auth: Auth, client: httpx.AsyncClient, admin: dict[str, str], work: MemoryAuthUnitOfWork
) -> None:
    """A key gives the first response again, with one mail; for another body it is 422; errors are not kept."""
    wrong = await client.post(INVITATIONS, headers=admin | KEY, json=NEWCOMER | {"roles": ["ghost"]})
    assert code_of(wrong, 422) == "validation_failed"
    for _ in range(3):
        answer = await client.post(INVITATIONS, headers=admin | KEY, json=NEWCOMER)
        assert (answer.status_code, answer.json()) == ACCEPTED
    assert len(work.outbox.tasks) == 1
    other = await client.post(INVITATIONS, headers=admin | KEY, json={"email": "other@example.com"})
    assert code_of(other, 422) == "idempotency_key_reused"
    await make_account(auth, work, "second@example.com", "admin")
    second = await sign_in(client, "second@example.com")
    assert (await client.post(INVITATIONS, headers=second | KEY, json=NEWCOMER)).status_code == 202
    assert len(work.outbox.tasks) == 2, "a key belongs to its caller"
    assert (await client.post(INVITATIONS, headers=admin, json=NEWCOMER)).status_code == 202
    assert len(work.outbox.tasks) == 3, "without a key there is no repetition"


async def test_parallel_requests_invite_once(
    client: httpx.AsyncClient, admin: dict[str, str], work: MemoryAuthUnitOfWork
) -> None:
    """20 parallel requests with one key add one mail."""
    answers = await asyncio.gather(*(client.post(INVITATIONS, headers=admin | KEY, json=NEWCOMER) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len(work.outbox.tasks) == 1


async def test_registration_is_closed_in_the_mode_invite(work: MemoryAuthUnitOfWork) -> None:
    """Each registration is 403 `registration_closed`, for a known, unknown and invalid address and a weak password."""
    closed = build_fake_auth(work, origins=OWN_ORIGINS, registration_mode="invite")
    await closed.registration.create_admin(**GOOD)
    transport = httpx.ASGITransport(serve(closed))
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
        for body in (GOOD, GOOD | NEWCOMER, GOOD | {"email": "no address"}, NEWCOMER | {"password": "short"}):
            assert code_of(await client.post(REGISTER, json=body), 403) == "registration_closed"
    assert not work.registrations.rows

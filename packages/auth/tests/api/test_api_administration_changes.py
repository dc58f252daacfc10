"""The routes by which administrators change accounts and roles."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tequipy_auth import Auth, Role
from tequipy_auth.testing import MemoryAuthUnitOfWork

from .routes import GOOD, LOGIN, ME, REFRESH, bearer, code_of, log_in

USERS, AUDIT, ROLES = "/api/v1/users", "/api/v1/audit-events", "/api/v1/roles"


@pytest.fixture
async def admin(make_user: Callable[[], Awaitable[None]], client: httpx.AsyncClient) -> dict[str, str]:
    """The header of an administrator."""
    await make_user()
    return bearer(await log_in(client))


async def add_users(auth: Auth, number: int) -> None:
    for each in range(number):
        await auth.registration.create_admin(
            email=f"user{each}@example.org", password=GOOD["password"], name=f"N{each}"
        )


async def sign_in(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    answer = await client.post(LOGIN, json=GOOD | {"email": email, "token_delivery": "body"})
    return bearer(answer)


async def id_of(client: httpx.AsyncClient, admin: dict[str, str], email: str) -> str:
    (account,) = (await client.get(USERS, headers=admin, params={"query": email})).json()["items"]
    user_id: str = account["id"]
    return user_id


async def test_changed_roles_reach_running_tokens(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """After a change of roles the old access token is refused; the session continues with the new roles."""
    await add_users(auth, 1)
    other = await client.post(LOGIN, json=GOOD | {"email": "user0@example.org", "token_delivery": "body"})
    url = f"{USERS}/{await id_of(client, admin, 'user0@')}/roles"
    assert (await client.put(url, headers=admin, json={"roles": ["support", "user"]})).status_code == 204
    assert code_of(await client.get(USERS, headers=bearer(other)), 401) == "invalid_token"
    client.cookies.clear()
    renewed = await client.post(REFRESH, json={"refresh_token": other.json()["refresh_token"]})
    me = (await client.get(ME, headers=bearer(renewed))).json()
    assert (me["roles"], me["permissions"]) == (["support", "user"], ["audit:read", "users:read"])


async def test_roles_are_changed_only_in_the_state_that_was_read(
    auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    """`If-Match` with the tag of an earlier state is 412 and changes nothing; with the current one it is 204."""
    await add_users(auth, 1)
    url = f"{USERS}/{await id_of(client, admin, 'user0@')}"
    tag = (await client.get(url, headers=admin)).headers["etag"]
    for known, status in ((tag, 204), (tag, 412), (f"W/{tag}", 412), ("*", 204)):
        answer = await client.put(f"{url}/roles", headers=admin | {"If-Match": known}, json={"roles": ["user"]})
        assert answer.status_code == status, known


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"roles": ["ghost"]}, 422, "validation_failed"),
        ({"roles": ["A B"]}, 422, "validation_failed"),
        ({"roles": []}, 409, "last_admin"),
    ],
)
async def test_wrong_roles_are_refused(
    client: httpx.AsyncClient, admin: dict[str, str], body: dict[str, Any], status: int, code: str
) -> None:
    """An unknown role is 422, and the last administrator cannot be demoted."""
    url = f"{USERS}/{await id_of(client, admin, GOOD['email'])}/roles"
    assert code_of(await client.put(url, headers=admin, json=body), status) == code


async def test_a_disabled_account_is_out_at_once(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """Its access token, refresh token and password are refused until it is enabled again."""
    await add_users(auth, 1)
    email = "user0@example.org"
    other = await client.post(LOGIN, json=GOOD | {"email": email, "token_delivery": "body"})
    url = f"{USERS}/{await id_of(client, admin, email)}"
    for _ in range(2):
        assert (await client.post(f"{url}/disable", headers=admin)).status_code == 204
    assert (await client.get(url, headers=admin)).json()["status"] == "disabled"
    assert code_of(await client.get(ME, headers=bearer(other)), 401) == "invalid_token"
    client.cookies.clear()
    refreshed = await client.post(REFRESH, json={"refresh_token": other.json()["refresh_token"]})
    assert code_of(refreshed, 401) == "session_revoked"
    login = GOOD | {"email": email, "token_delivery": "body"}
    assert code_of(await client.post(LOGIN, json=login), 401) == "invalid_credentials"
    assert (await client.post(f"{url}/enable", headers=admin)).status_code == 204
    assert (await client.post(LOGIN, json=login)).status_code == 200


async def test_administrators_keep_one_of_them(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """Nobody can disable themself, nor the last other administrator once that is the only one."""
    own = await id_of(client, admin, GOOD["email"])
    assert code_of(await client.post(f"{USERS}/{own}/disable", headers=admin), 409) == "self_disable"
    await add_users(auth, 1)
    other = await id_of(client, admin, "user0@")
    second = await sign_in(client, "user0@example.org")
    assert (await client.post(f"{USERS}/{own}/disable", headers=second)).status_code == 204
    assert code_of(await client.put(f"{USERS}/{other}/roles", headers=second, json={"roles": []}), 409) == "last_admin"


async def test_an_account_is_unlocked(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """After five wrong passwords the login is locked; an administrator unlocks it."""
    await add_users(auth, 1)
    wrong = {"email": "user0@example.org", "password": "another wrong password", "token_delivery": "body"}
    client.cookies.clear()
    answers = [(await client.post(LOGIN, json=wrong)).status_code for _ in range(6)]
    assert answers[-1] == 429
    url = f"{USERS}/{await id_of(client, admin, 'user0@')}/unlock"
    assert (await client.post(url, headers=admin)).status_code == 204
    assert (await client.post(LOGIN, json=wrong | GOOD | {"email": "user0@example.org"})).status_code == 200


async def test_an_administrator_ends_sessions_and_mails_a_reset(
    auth: Auth, client: httpx.AsyncClient, admin: dict[str, str], work: MemoryAuthUnitOfWork
) -> None:
    """All sessions of the account end; the reset is a mail to its owner, and both are audited with the actor."""
    await add_users(auth, 1)
    other = await sign_in(client, "user0@example.org")
    user_id = await id_of(client, admin, "user0@")
    assert (await client.delete(f"{USERS}/{user_id}/sessions", headers=admin)).status_code == 204
    assert code_of(await client.get(ME, headers=other), 401) == "invalid_token"
    answer = await client.post(f"{USERS}/{user_id}/password-reset", headers=admin)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert work.outbox.tasks[-1].payload == {"mail": "reset_password", "subject_id": user_id}
    own = await id_of(client, admin, GOOD["email"])
    events = (await client.get(AUDIT, headers=admin, params={"user_id": user_id})).json()["items"]
    assert [(event["action"], event["actor_id"]) for event in events[:2]] == [
        ("reset_requested", own),
        ("session_revoked", own),
    ]


async def test_roles_are_made_changed_and_deleted(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """PUT makes or changes a role and returns it; a role that no account has can be deleted; the built-in ones stay."""
    await add_users(auth, 1)
    url, user = f"{ROLES}/auditor", f"{USERS}/{await id_of(client, admin, 'user0@')}/roles"
    for permissions in (["audit:read"], ["users:read", "audit:read"]):
        answer = await client.put(url, headers=admin, json={"permissions": permissions})
        role = {"name": "auditor", "permissions": sorted(permissions), "builtin": False}
        assert (answer.status_code, answer.json()) == (200, role)
    assert (await client.put(user, headers=admin, json={"roles": ["auditor"]})).status_code == 204
    assert code_of(await client.delete(url, headers=admin), 409) == "role_in_use"
    assert (await client.put(user, headers=admin, json={"roles": []})).status_code == 204
    assert (await client.delete(url, headers=admin)).status_code == 204
    assert code_of(await client.delete(url, headers=admin), 404) == "not_found"
    for name in ("admin", "user"):
        answer = await client.put(f"{ROLES}/{name}", headers=admin, json={"permissions": []})
        assert code_of(answer, 409) == "builtin_role"
        assert code_of(await client.delete(f"{ROLES}/{name}", headers=admin), 409) == "builtin_role"
    for wrong in ("ghost:read", "x"):
        answer = await client.put(url, headers=admin, json={"permissions": [wrong]})
        assert [error["code"] for error in answer.json()["errors"]] == ["unknown_permission"]


async def test_nobody_gives_a_permission_that_they_lack(
    auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    """One who may change accounts and roles, but not read the audit, cannot give that to an account or a role."""
    await add_users(auth, 2)
    await auth.roles.define(Role("manager", ("users:read", "users:write", "roles:write")))
    manager_id, other_id = [await id_of(client, admin, f"user{each}@") for each in range(2)]
    for user_id, roles in ((manager_id, ["manager"]), (other_id, ["user"])):
        answer = await client.put(f"{USERS}/{user_id}/roles", headers=admin, json={"roles": roles})
        assert answer.status_code == 204
    manager = await sign_in(client, "user0@example.org")
    for target in (manager_id, other_id):
        for roles in (["admin"], ["support"], ["manager", "support"]):
            answer = await client.put(f"{USERS}/{target}/roles", headers=manager, json={"roles": roles})
            assert code_of(answer, 403) == "forbidden"
    for name in ("manager", "new"):
        answer = await client.put(f"{ROLES}/{name}", headers=manager, json={"permissions": ["audit:read"]})
        assert code_of(answer, 403) == "forbidden"
    answer = await client.put(f"{ROLES}/new", headers=manager, json={"permissions": ["users:read"]})
    assert answer.status_code == 200
    answer = await client.put(f"{USERS}/{other_id}/roles", headers=manager, json={"roles": ["manager"]})
    assert answer.status_code == 204

"""The routes for administrators: accounts, roles and the audit, and the permissions that they require."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

from tequipy_auth import Auth, Permission, Principal, Role
from tequipy_auth.api import RequirePermission, wire_auth
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.web import CatchErrors, LimitBodies, NoStore, Pipeline, wire_errors

from .routes import GOOD, LOGIN, bearer, code_of, log_in

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


async def pages(client: httpx.AsyncClient, url: str, headers: dict[str, str], **parameters: Any) -> list[list[Any]]:
    found, cursor = [], None
    while True:
        asked = parameters | ({"cursor": cursor} if cursor else {})
        answer = (await client.get(url, headers=headers, params=asked)).json()
        found.append(answer["items"])
        cursor = answer["next_cursor"]
        if cursor is None:
            return found


async def test_accounts_are_listed_in_pages(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """Each account is on one page, the newest first, with the fields of the contract."""
    await add_users(auth, 6)
    listed = await pages(client, USERS, admin, limit=3)
    assert [len(page) for page in listed] == [3, 3, 1]
    accounts = [account for page in listed for account in page]
    assert [account["email"] for account in accounts] == [
        *(f"user{each}@example.org" for each in reversed(range(6))),
        GOOD["email"],
    ]
    assert accounts[-1]["last_login_at"] is not None
    assert accounts[0] | {"id": "", "created_at": ""} == {
        "id": "",
        "email": "user5@example.org",
        "name": "N5",
        "email_verified": True,
        "status": "active",
        "roles": ["admin"],
        "created_at": "",
        "last_login_at": None,
    }


@pytest.mark.parametrize(
    ("query", "found"), [("USER1@", ["user1@example.org"]), ("n2", ["user2@example.org"]), ("ser1", []), ("%", [])]
)
async def test_accounts_are_found_by_address_and_name(
    auth: Auth, client: httpx.AsyncClient, admin: dict[str, str], query: str, found: list[str]
) -> None:
    """A query finds the beginning of an address and any part of a name."""
    await add_users(auth, 3)
    answer = await client.get(USERS, headers=admin, params={"query": query})
    assert [account["email"] for account in answer.json()["items"]] == found


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00"])
async def test_times_outside_of_the_calendar_are_refused(
    client: httpx.AsyncClient, admin: dict[str, str], name: str, time: str
) -> None:
    """A time without an offset, or one that UTC cannot express, is 422 and names the parameter."""
    answer = await client.get(AUDIT, headers=admin, params={name: time})
    assert code_of(answer, 422) == "validation_failed"
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"cursor": "x"},
        {"cursor": "AZSKXnxAezqfDj0sGwqfjh"},
        {"cursor": "Ä" * 22},
        {"status": "gone"},
        {"query": "x" * 255},
    ],
)
async def test_wrong_parameters_are_refused(
    client: httpx.AsyncClient, admin: dict[str, str], parameters: dict[str, str]
) -> None:
    """A wrong limit, cursor, status or query is 422 and names the parameter."""
    answer = await client.get(USERS, headers=admin, params=parameters)
    assert code_of(answer, 422) == "validation_failed"
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}" for name in parameters]


async def test_an_account_has_an_entity_tag(auth: Auth, client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """The tag answers 304 as long as nothing changes; an unknown account is 404."""
    (account,) = (await client.get(USERS, headers=admin)).json()["items"]
    url = f"{USERS}/{account['id']}"
    first = await client.get(url, headers=admin)
    assert first.json() == account
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await client.get(url, headers=admin | {"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == "private, no-cache"
    await auth.accounts.rename(UUID(account["id"]), "Other")
    changed = await client.get(url, headers=admin | {"If-None-Match": tag})
    assert (changed.status_code, changed.json()["name"]) == (200, "Other")
    assert code_of(await client.get(f"{USERS}/01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e", headers=admin), 404) == "not_found"


async def test_audit_events_are_paged_and_filtered(
    client: httpx.AsyncClient, admin: dict[str, str], work: MemoryAuthUnitOfWork
) -> None:
    """All events are on the pages of the audit, those of the caller's account on those of `/me/events`."""
    for _ in range(4):
        await log_in(client)
    everything = [event for page in await pages(client, AUDIT, admin, limit=2) for event in page]
    assert [event["id"] for event in everything] == [str(row.id) for row in reversed(work.audit.rows)]
    logins = [event for page in await pages(client, AUDIT, admin, limit=2, action="login_ok") for event in page]
    assert {event["action"] for event in logins} == {"login_ok"}
    assert len(logins) == 5
    subject = logins[0]["subject_id"]
    mine = [event for page in await pages(client, "/api/v1/auth/me/events", admin, limit=2) for event in page]
    assert mine == [event for page in await pages(client, AUDIT, admin, user_id=subject) for event in page]
    assert (await client.get(AUDIT, headers=admin, params={"until": logins[-1]["at"]})).json()["items"] == [
        event for event in everything if event["at"] < logins[-1]["at"]
    ]


async def test_roles_and_permissions_are_listed(client: httpx.AsyncClient, admin: dict[str, str], auth: Auth) -> None:
    """Built-in and stored roles are listed, and every declared permission with its description."""
    await auth.roles.define(Role("auditor", ("audit:read",)))
    answer = (await client.get(ROLES, headers=admin)).json()
    assert {role["name"]: role["builtin"] for role in answer["items"]} == {
        "user": True,
        "support": False,
        "admin": True,
        "auditor": False,
    }
    assert {each["name"] for each in answer["permissions"]} == {
        "users:read",
        "users:write",
        "roles:write",
        "audit:read",
    }


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("path", [USERS, f"{USERS}/01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e", ROLES, AUDIT])
async def test_only_permitted_callers_are_served(
    path: str, client: httpx.AsyncClient, work: MemoryAuthUnitOfWork
) -> None:
    """Without a token the answer is 401, without the permission 403, whether the object exists or not."""
    assert code_of(await client.get(path), 401) == "unauthenticated"
    (account,) = work.users.rows.values()
    work.users.rows[account.id] = replace(account, roles=("user",))
    answer = await client.post(LOGIN, json=GOOD)
    assert code_of(await client.get(path, headers=bearer(answer)), 403) == "forbidden"


def feature_app(auth: Auth) -> FastAPI:
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, auth)

    @app.get("/reports")
    async def list_reports(reader: Annotated[Principal, Depends(RequirePermission("reports:read"))]) -> str:
        """List the reports."""
        return str(reader.user_id)

    return app


async def test_a_feature_protects_its_route_with_a_permission_of_its_own(work: MemoryAuthUnitOfWork) -> None:
    """The permission decides who is served, and the OpenAPI document names it and the response without it."""
    auth = build_fake_auth(work, permissions=[Permission("reports:read", "See all reports.")])
    app = feature_app(auth)
    await auth.registration.create_admin(**GOOD)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        answer = await client.post(LOGIN, json=GOOD | {"token_delivery": "body"})
        assert (await client.get("/reports", headers=bearer(answer))).status_code == 200
    operation = app.openapi()["paths"]["/reports"]["get"]
    assert operation["description"] == "List the reports.\n\nRequires the permission `reports:read`."
    assert list(operation["responses"]["403"]["content"]["application/problem+json"]["examples"]) == ["forbidden"]


def test_an_undeclared_permission_is_an_error(work: MemoryAuthUnitOfWork) -> None:
    """A permission that no package declares, such as a misspelt one, fails when the document is built."""
    with pytest.raises(ValueError, match=r"no package declares the permission 'reports:read'"):
        feature_app(build_fake_auth(work)).openapi()

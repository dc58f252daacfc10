"""Every route with every kind of caller: what is expected, and what is answered."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from tequipy_auth import Auth, Client
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock

from .conftest import OWN_ORIGINS, serve
from .routes import LOGIN, PASSWORD, bearer

A, U = "/api/v1/auth", "/api/v1/users"
UNKNOWN = "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"
CALLERS: Final = ("nobody", "user", "support", "admin", "disabled")
EVERYBODY: Final = "everybody"
BEARER: Final = "bearer"

# The routes of the contract, with who may call each: everybody, everybody with an access token, or a permission.
ROUTES: Final = {
    f"POST {A}/register": EVERYBODY,
    f"POST {A}/verify-email": EVERYBODY,
    f"POST {A}/verify-email/resend": EVERYBODY,
    f"POST {A}/accept-invitation": EVERYBODY,
    f"POST {A}/login": EVERYBODY,
    f"POST {A}/refresh": EVERYBODY,
    f"POST {A}/logout": EVERYBODY,
    f"POST {A}/logout-all": BEARER,
    f"POST {A}/logout-others": BEARER,
    f"GET {A}/sessions": BEARER,
    f"DELETE {A}/sessions/{{id}}": BEARER,
    f"POST {A}/sessions/end": EVERYBODY,
    f"POST {A}/password/forgot": EVERYBODY,
    f"POST {A}/password/reset": EVERYBODY,
    f"POST {A}/password/change": BEARER,
    f"POST {A}/reauthenticate": BEARER,
    f"POST {A}/email/change": BEARER,
    f"POST {A}/email/confirm": EVERYBODY,
    f"POST {A}/email/undo": EVERYBODY,
    f"GET {A}/me": BEARER,
    f"PATCH {A}/me": BEARER,
    f"DELETE {A}/me": BEARER,
    f"GET {A}/me/events": BEARER,
    f"GET {A}/me/export": BEARER,
    f"GET {U}": "users:read",
    f"GET {U}/{{id}}": "users:read",
    f"POST {U}/{{id}}/disable": "users:write",
    f"POST {U}/{{id}}/enable": "users:write",
    f"POST {U}/{{id}}/unlock": "users:write",
    "GET /api/v1/roles": "users:read",
    "PUT /api/v1/roles/{name}": "roles:write",
    "DELETE /api/v1/roles/{name}": "roles:write",
    f"POST {U}/invitations": "users:write",
    f"GET {U}/invitations": "users:read",
    f"DELETE {U}/invitations/{{id}}": "users:write",
    f"PUT {U}/{{id}}/roles": "users:write",
    f"DELETE {U}/{{id}}/sessions": "users:write",
    f"POST {U}/{{id}}/password-reset": "users:write",
    "GET /api/v1/audit-events": "audit:read",
    "GET /.well-known/jwks.json": EVERYBODY,
}
GRANTED: Final = {
    "support": {"users:read", "audit:read"},
    "admin": {"users:read", "users:write", "roles:write", "audit:read"},
}
REFUSALS: Final = {401: {"unauthenticated", "invalid_token"}, 403: {"forbidden"}}
BODIES: Final[dict[str, dict[str, Any]]] = {
    "roles": {"roles": ["user"]},
    "{name}": {"permissions": ["users:read"]},
    "invitations": {"email": "invited@example.org"},
    "change": {"current_password": PASSWORD, "new_password": "another long horse battery"},
    "email/change": {"new_email": "new@example.org"},
    "reauthenticate": {"password": PASSWORD},
}


def served_routes(app: FastAPI) -> set[str]:
    paths = app.openapi()["paths"]
    return {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}


def expected(rule: str, caller: str) -> int | None:
    """Return the status of a refusal, or None for a caller who is served."""
    if rule == EVERYBODY:
        return None
    if caller in {"nobody", "disabled"}:
        return 401
    return None if rule == BEARER or rule in GRANTED.get(caller, set()) else 403


@dataclass
class World:
    """An app with an account of each kind, and what belongs to somebody else."""

    app: FastAPI
    headers: dict[str, dict[str, str]]
    other_user: str
    other_session: str
    clock: FrozenClock

    async def call(self, route: str, caller: str, **identifiers: str) -> httpx.Response:
        method, _, template = route.partition(" ")
        path = template.format(**{"id": UNKNOWN, "name": "auditor"} | identifiers)
        body = next((body for end, body in reversed(BODIES.items()) if template.endswith(end)), {})
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
            json = None if method in {"GET", "HEAD"} else body
            return await client.request(method, path, headers=self.headers[caller], json=json)


@pytest.fixture
async def world() -> World:
    clock = FrozenClock()
    auth = build_fake_auth(work := MemoryAuthUnitOfWork(clock), clock=clock, origins=OWN_ORIGINS)
    ids: dict[str, UUID] = {}
    headers: dict[str, dict[str, str]] = {"nobody": {}}
    app = serve(auth)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client:
        for name in ("user", "support", "admin", "disabled", "other"):
            email = f"{name}@example.com"
            await auth.registration.create_admin(email=email, password=PASSWORD)
            (ids[name],) = [row.id for row in work.users.rows.values() if row.email.canonical == email]
            await work.users.set_roles(ids[name], ("admin",) if name in {"admin", "other"} else (name,))
            body = {"email": email, "password": PASSWORD, "token_delivery": "body"}
            headers[name] = bearer(await client.post(LOGIN, json=body))
    await disable(auth, headers["admin"], ids["disabled"])
    (session,) = [row.id for row in work.sessions.rows.values() if row.user_id == ids["other"]]
    return World(app, headers, str(ids["other"]), str(session), clock)


async def disable(auth: Auth, admin: dict[str, str], user_id: UUID) -> None:
    principal = await auth.access_tokens.verify(admin["Authorization"].removeprefix("Bearer "))
    await auth.administration.disable(principal, user_id, client=Client())


def test_the_routes_are_those_of_the_contract(world: World) -> None:
    """The app serves exactly the routes of the contract."""
    assert served_routes(world.app) == set(ROUTES)


async def test_each_path_has_the_methods_of_the_contract(world: World) -> None:
    """`Allow` lists the methods of the contract alone: no path with an identifier includes a literal one."""
    for path in {route.partition(" ")[2] for route in ROUTES}:
        answer = await world.call(f"TRACE {path}", "admin")
        methods = sorted(route.partition(" ")[0] for route in ROUTES if route.partition(" ")[2] == path)
        assert (path, answer.status_code, answer.headers["allow"].split(", ")) == (path, 405, methods)


@pytest.mark.parametrize("route", [route for route in ROUTES if "{id}" in route])
async def test_a_malformed_identifier_is_unknown(route: str, world: World) -> None:
    """An identifier that is no UUID is 404, for every caller."""
    for caller in CALLERS:
        answer = await world.call(route, caller, id="x")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("route", ROUTES)
async def test_each_caller_is_served_or_refused(route: str, world: World) -> None:
    """Without a token, or with that of a disabled account, the answer is 401, without the permission 403."""
    for caller in CALLERS:
        answer = await world.call(route, caller)
        code = answer.json().get("code") if answer.content else None
        print(f"\n{route} {caller}: {answer.status_code} {code or ''}")
        refusal = expected(ROUTES[route], caller)
        if refusal is not None:
            assert (answer.status_code, code in REFUSALS[refusal]) == (refusal, True)
        elif answer.status_code in {401, 403}:
            # The route's own refusals, about what was sent.
            assert code in {"refresh_missing", "invalid_credentials", "registration_closed"}
        else:
            assert answer.status_code < 500


async def test_objects_of_other_accounts_are_not_found(world: World) -> None:
    """A session of another account is 404 for its caller, as an unknown one is."""
    route = f"DELETE {A}/sessions/{{id}}"
    for caller in ("user", "support", "admin"):
        for identifier in (world.other_session, UNKNOWN):
            answer = await world.call(route, caller, id=identifier)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("route", [route for route, rule in ROUTES.items() if ":" in rule and "{id}" in route])
async def test_other_accounts_are_for_those_with_the_permission(route: str, world: World) -> None:
    """The account of somebody else is served to those with the permission alone, an unknown one is then 404."""
    for caller in CALLERS:
        for identifier in (world.other_user, UNKNOWN):
            answer = await world.call(route, caller, id=identifier)
            refusal = expected(ROUTES[route], caller)
            if refusal is not None:
                assert answer.status_code == refusal
            elif identifier == UNKNOWN or "invitations" in route:
                assert answer.status_code == 404
            else:
                assert answer.status_code < 300


@pytest.mark.parametrize(
    "route", [route for route, rule in ROUTES.items() if rule.endswith(":write") or "email/change" in route]
)
async def test_changes_need_fresh_authentication(route: str, world: World) -> None:
    """Five minutes after the login, what changes something answers 401 `reauth_required`."""
    world.clock.advance(timedelta(minutes=5))
    answer = await world.call(route, "admin")
    assert (answer.status_code, answer.json()["code"]) == (401, "reauth_required")

"""Open registration, lockout, device marks and fresh authentication over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from http.cookies import SimpleCookie

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_auth import Auth
from tequipy_auth.api import FreshPrincipal, wire_auth
from tequipy_auth.testing import PUBLIC_URL, MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock
from tequipy_platform.web import CatchErrors, LimitBodies, NoStore, Pipeline, wire_errors

from .routes import AUTH, GOOD, code_of, morsel

WRONG = GOOD | {"password": "wrong"}


@pytest.fixture
async def open_client(work: MemoryAuthUnitOfWork) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with open registration."""
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, build_fake_auth(work, registration_mode="open"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=PUBLIC_URL) as client:
        yield client


async def test_open_registration_answers_with_the_user(open_client: httpx.AsyncClient) -> None:
    """201 with an unverified user, then 409; only the correct password gets `email_not_verified`."""
    answer = await open_client.post(f"{AUTH}/register", json=GOOD | {"name": "Ada"})
    assert answer.status_code == 201
    user = answer.json()
    assert user.keys() == {"id", "email", "email_verified", "name", "roles", "permissions", "created_at"}
    assert (user["email"], user["email_verified"], user["name"], user["roles"]) == (
        GOOD["email"],
        False,
        "Ada",
        ["user"],
    )
    assert answer.headers["cache-control"] == "no-store"
    assert code_of(await open_client.post(f"{AUTH}/register", json=GOOD), 409) == "email_taken"
    assert code_of(await open_client.post(f"{AUTH}/login", json=WRONG), 401) == "invalid_credentials"
    assert code_of(await open_client.post(f"{AUTH}/login", json=GOOD), 403) == "email_not_verified"


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("email", [GOOD["email"], "nobody@example.com"])
async def test_asking_for_another_link_answers_alike(client: httpx.AsyncClient, email: str) -> None:
    """202 for any address, 422 for an invalid one."""
    answer = await client.post(f"{AUTH}/verify-email/resend", json={"email": email})
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert code_of(await client.post(f"{AUTH}/verify-email/resend", json={"email": "x"}), 422) == "validation_failed"


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("email", [GOOD["email"], "nobody@example.com"])
async def test_a_lock_has_retry_after(client: httpx.AsyncClient, email: str) -> None:
    """Five failures get 401, the next attempt gets 429 with `Retry-After`, for any address."""
    for _ in range(5):
        answer = await client.post(f"{AUTH}/login", json=WRONG | {"email": email})
        assert code_of(answer, 401) == "invalid_credentials"
    answer = await client.post(f"{AUTH}/login", json=GOOD | {"email": email})
    assert code_of(answer, 429) == "login_locked"
    assert 1 <= int(answer.headers["retry-after"]) <= 30


def device_cookie(answer: httpx.Response, name: str = "__Host-device") -> SimpleCookie | None:
    for header in answer.headers.get_list("set-cookie"):
        if header.startswith(f"{name}="):
            return SimpleCookie(header)
    return None


@pytest.mark.usefixtures("user")
async def test_a_login_sets_the_device_cookie(client: httpx.AsyncClient) -> None:
    """The device cookie has all protective attributes and lasts a year; failures and refreshes set none."""
    assert device_cookie(await client.post(f"{AUTH}/login", json=WRONG)) is None
    answer = await client.post(f"{AUTH}/login", json=GOOD)
    cookie = device_cookie(answer)
    assert cookie is not None
    morsel = cookie["__Host-device"]
    assert (morsel["path"], morsel["secure"], morsel["httponly"], morsel["domain"]) == ("/", True, True, "")
    assert (morsel["samesite"].lower(), morsel["max-age"]) == ("strict", str(365 * 86400))
    refreshed = await client.post(f"{AUTH}/refresh", json={})
    assert refreshed.status_code == 200
    assert device_cookie(refreshed) is None
    again = device_cookie(await client.post(f"{AUTH}/login", json=GOOD))
    assert again is not None
    assert again["__Host-device"].value.split(".")[4] == morsel.value.split(".")[4], "the device keeps its id"


@pytest.mark.usefixtures("user")
async def test_a_login_with_body_delivery_sets_no_cookie(client: httpx.AsyncClient) -> None:
    """A client that takes its refresh token in the body gets no cookie at all."""
    answer = await client.post(f"{AUTH}/login", json=GOOD | {"token_delivery": "body"})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


@pytest.mark.usefixtures("user")
async def test_a_local_mark_needs_no_tls(local_client: httpx.AsyncClient) -> None:
    """On a developer's machine the cookie is named `device` and lacks `Secure`."""
    cookie = device_cookie(await local_client.post(f"{AUTH}/login", json=GOOD), "device")
    assert cookie is not None
    assert not cookie["device"]["secure"]


@pytest.mark.usefixtures("user")
async def test_a_client_without_cookies_is_marked_by_its_device_token(client: httpx.AsyncClient) -> None:
    """The `device_token` of a login with body delivery gives the next login its own counter."""
    delivery = {"token_delivery": "body"}
    token = (await client.post(f"{AUTH}/login", json=GOOD | delivery)).json()["device_token"]
    for _ in range(5):
        await client.post(f"{AUTH}/login", json=WRONG)
    assert code_of(await client.post(f"{AUTH}/login", json=GOOD | delivery), 429) == "login_locked"
    forged = {"device_token": token[:-1] + ("0" if token[-1] != "0" else "1")}
    assert code_of(await client.post(f"{AUTH}/login", json=GOOD | delivery | forged), 429) == "login_locked"
    answer = await client.post(f"{AUTH}/login", json=GOOD | delivery | {"device_token": token})
    assert answer.status_code == 200
    assert answer.json()["device_token"].split(".")[4] == token.split(".")[4], "the device keeps its id"
    assert "set-cookie" not in answer.headers


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("token", ["x" * 1025, 7])
async def test_a_device_token_is_bounded_and_not_echoed(client: httpx.AsyncClient, token: object) -> None:
    """A `device_token` that is no text of limited length gets 422 with its name."""
    answer = await client.post(f"{AUTH}/login", json=GOOD | {"device_token": token})
    assert code_of(answer, 422) == "validation_failed"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/device_token"]
    assert "xxx" not in answer.text


@pytest.mark.usefixtures("user")
async def test_a_known_browser_is_not_locked_out_by_others(client: httpx.AsyncClient) -> None:
    """The cookie of an earlier login allows a login although the client address is locked."""
    await client.post(f"{AUTH}/login", json=GOOD)
    device = client.cookies["__Host-device"]
    client.cookies.clear()
    for _ in range(5):
        await client.post(f"{AUTH}/login", json=WRONG)
    assert code_of(await client.post(f"{AUTH}/login", json=GOOD), 429) == "login_locked"
    client.cookies.set("__Host-device", device, domain="app.example.com")
    assert (await client.post(f"{AUTH}/login", json=GOOD)).status_code == 200


@pytest.fixture
async def bearer(clock: FrozenClock) -> AsyncIterator[httpx.AsyncClient]:
    """A caller who has just logged in to an app with an additional sensitive route."""
    auth: Auth = build_fake_auth(MemoryAuthUnitOfWork(clock), clock=clock)
    await auth.registration.create_admin(**GOOD)
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, auth)

    @app.post("/sensitive", status_code=204)
    async def sensitive(principal: FreshPrincipal) -> None:
        assert principal.roles == ("admin",)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=PUBLIC_URL) as client:
        tokens = (await client.post(f"{AUTH}/login", json=GOOD)).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield client


async def test_a_sensitive_route_requires_fresh_authentication(bearer: httpx.AsyncClient, clock: FrozenClock) -> None:
    """It responds within five minutes of the login; then it requires a reauthentication, whose token alone works."""
    assert (await bearer.post("/sensitive")).status_code == 204
    clock.advance(timedelta(minutes=5))
    stale = await bearer.post("/sensitive")
    assert (stale.status_code, stale.json()["code"]) == (401, "reauth_required")
    answer = await bearer.post(f"{AUTH}/reauthenticate", json={"password": GOOD["password"]})
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
    assert morsel(answer)["httponly"]
    assert answer.headers["cache-control"] == "no-store"
    assert code_of(await bearer.post("/sensitive"), 401) == "invalid_token"
    bearer.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    assert (await bearer.post("/sensitive")).status_code == 204
    answer = await bearer.post(f"{AUTH}/reauthenticate", json={"password": GOOD["password"], "token_delivery": "body"})
    assert "set-cookie" not in answer.headers
    assert {"refresh_token", "refresh_expires_in"} < answer.json().keys()


async def test_a_reauthentication_answers_as_a_login_does(bearer: httpx.AsyncClient) -> None:
    """Wrong passwords get 401 `invalid_credentials`, then 429; a missing token gets 401."""
    for _ in range(5):
        answer = await bearer.post(f"{AUTH}/reauthenticate", json={"password": "wrong"})
        assert code_of(answer, 401) == "invalid_credentials"
    answer = await bearer.post(f"{AUTH}/reauthenticate", json={"password": GOOD["password"]})
    assert code_of(answer, 429) == "login_locked"
    del bearer.headers["Authorization"]
    assert code_of(await bearer.post(f"{AUTH}/reauthenticate", json={"password": "x"}), 401) == "unauthenticated"


@pytest.fixture
def me(client: httpx.AsyncClient, access_token: str) -> Callable[..., Awaitable[httpx.Response]]:
    headers = {"Authorization": f"Bearer {access_token}"}
    return lambda method="GET", **sent: client.request(method, f"{AUTH}/me", headers=headers, **sent)


async def test_a_name_is_changed_and_seen_at_once(me: Callable[..., Awaitable[httpx.Response]]) -> None:
    """The response and the next GET contain the new name, trimmed; null removes it."""
    assert (await me()).json()["name"] is None
    for sent, name in ((" Countess Ada ", "Countess Ada"), (None, None)):
        answer = await me("PATCH", json={"name": sent})
        assert (answer.status_code, answer.json()["name"]) == (200, name)
        assert (await me()).json() == answer.json()


@pytest.mark.parametrize(
    "sent", [{"name": ""}, {"name": "x" * 101}, {"name": "a\nb"}, {}, {"name": "Ada", "roles": ["admin"]}]
)
async def test_a_bad_change_of_the_account_is_refused(
    me: Callable[..., Awaitable[httpx.Response]], sent: dict[str, object]
) -> None:
    """An invalid or missing name and any other field get 422."""
    assert code_of(await me("PATCH", json=sent), 422) == "validation_failed"


async def test_a_change_invalidates_the_cached_profile_by_a_task_too(
    me: Callable[..., Awaitable[httpx.Response]], work: MemoryAuthUnitOfWork
) -> None:
    """A task of the same transaction removes profiles that concurrent changes or a dead process left in the cache."""
    answer = await me("PATCH", json={"name": "Ada"})
    (asked,) = work.outbox.tasks
    assert (asked.task, asked.payload) == ("auth.drop_profile", {"user_id": answer.json()["id"]})

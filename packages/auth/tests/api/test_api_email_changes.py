"""Changes of address over HTTP."""

from datetime import timedelta

import httpx
import pytest

from tequipy_auth import Auth
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform.testing import FrozenClock

from .conftest import OWN_ORIGINS, serve
from .routes import AUTH, EMAIL, GOOD, LOGIN, ME, PASSWORD, bearer, code_of, log_in, mailed_tokens

NEW_EMAIL = "ada@example.net"
CHANGE, CONFIRM, UNDO = (f"{AUTH}/email/{name}" for name in ("change", "confirm", "undo"))


@pytest.mark.usefixtures("user")
async def test_a_change_is_confirmed_and_undone(
    client: httpx.AsyncClient, auth: Auth, work: MemoryAuthUnitOfWork
) -> None:
    """202, then 204 by the link to the new address, then 204 by the link to the old one, which ends the sessions."""
    headers = bearer(await log_in(client))
    answer = await client.post(CHANGE, json={"new_email": NEW_EMAIL}, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    tokens = await mailed_tokens(auth, work)
    assert tokens.keys() == {"confirm-email", "undo-email"}
    confirm = {"token": tokens["confirm-email"]}
    undo = {"token": tokens["undo-email"]}
    assert code_of(await client.post(CONFIRM, json=undo), 400) == "token_invalid"
    assert code_of(await client.post(UNDO, json=confirm), 400) == "token_invalid"
    done = await client.post(CONFIRM, json=confirm)
    assert (done.status_code, done.content) == (204, b"")
    assert (await client.get(ME, headers=headers)).json()["email"] == NEW_EMAIL
    assert code_of(await client.post(CONFIRM, json=confirm), 400) == "token_invalid"
    undone = await client.post(UNDO, json=undo)
    assert (undone.status_code, undone.content) == (204, b"")
    assert code_of(await client.get(ME, headers=headers), 401) == "invalid_token"
    assert (await client.get(ME, headers=bearer(await log_in(client)))).json()["email"] == EMAIL
    assert code_of(await client.post(UNDO, json=undo), 400) == "token_invalid"


@pytest.mark.usefixtures("user")
async def test_every_address_is_answered_alike(client: httpx.AsyncClient, auth: Auth) -> None:
    """A free, a taken and the own address get the same answer, and so does a request over the budget."""
    await auth.registration.create_admin(email="taken@example.com", password=PASSWORD)
    headers = bearer(await log_in(client))
    for email in (NEW_EMAIL, "taken@example.com", EMAIL, *(f"ada{number}@example.net" for number in range(5))):
        answer = await client.post(CHANGE, json={"new_email": email}, headers=headers)
        assert (answer.status_code, answer.content) == (202, b'{"status":"accepted"}')
        assert answer.headers["cache-control"] == "no-store"
    refused = await client.post(CHANGE, json={"new_email": "nobody"}, headers=headers)
    assert code_of(refused, 422) == "validation_failed"
    assert refused.json()["errors"][0]["pointer"] == "/new_email"


async def test_a_change_needs_fresh_authentication(clock: FrozenClock) -> None:
    """401 `reauth_required` five minutes after the login, 401 without a token."""
    auth = build_fake_auth(MemoryAuthUnitOfWork(clock), clock=clock, origins=OWN_ORIGINS)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    transport = httpx.ASGITransport(serve(auth))
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
        headers = bearer(await client.post(LOGIN, json=GOOD))
        clock.advance(timedelta(minutes=5))
        body = {"new_email": NEW_EMAIL}
        assert code_of(await client.post(CHANGE, json=body, headers=headers), 401) == "reauth_required"
        assert code_of(await client.post(CHANGE, json=body), 401) == "unauthenticated"


@pytest.mark.parametrize("url", [CHANGE, CONFIRM, UNDO])
@pytest.mark.parametrize(
    ("body", "code"), [(b"{", "malformed_body"), (b"{}", "validation_failed"), (b'{"roles":[]}', "validation_failed")]
)
async def test_bad_bodies_are_refused(
    client: httpx.AsyncClient, access_token: str, url: str, body: bytes, code: str
) -> None:
    """Invalid JSON gets 400, missing and unknown fields get 422."""
    headers = {"Authorization": f"Bearer {access_token}", "Content-Type": "application/json"}
    answer = await client.post(url, content=body, headers=headers)
    assert code_of(answer, 400 if code == "malformed_body" else 422) == code

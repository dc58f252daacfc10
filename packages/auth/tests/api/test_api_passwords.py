"""Password reset and change over HTTP."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from .routes import AUTH, GOOD, code_of

NEW = "an even better password"


@pytest.mark.usefixtures("user")
async def test_a_reset_request_answers_alike(client: httpx.AsyncClient) -> None:
    """202 with the same body for any address; 422 for an invalid one."""
    answers = [
        await client.post(f"{AUTH}/password/forgot", json={"email": email})
        for email in (GOOD["email"], "nobody@example.com")
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, b'{"status":"accepted"}')}
    assert code_of(await client.post(f"{AUTH}/password/forgot", json={"email": "x"}), 422) == "validation_failed"


@pytest.mark.usefixtures("user")
async def test_a_reset_by_the_mailed_link(
    client: httpx.AsyncClient, mailed_token: Callable[[], Awaitable[str]]
) -> None:
    """A weak password gets 422 with reasons, a good one 204 without a cookie; invalid links get 400."""
    await client.post(f"{AUTH}/password/forgot", json={"email": GOOD["email"]})
    token = await mailed_token()
    weak = await client.post(f"{AUTH}/password/reset", json={"token": token, "new_password": "short"})
    assert code_of(weak, 422) == "weak_password"
    assert weak.json()["reasons"] == ["too_short"]
    done = await client.post(f"{AUTH}/password/reset", json={"token": token, "new_password": NEW})
    assert (done.status_code, done.content) == (204, b"")
    assert "set-cookie" not in done.headers
    for wrong in (token, "ev1.x.y"):
        again = await client.post(f"{AUTH}/password/reset", json={"token": wrong, "new_password": NEW})
        assert code_of(again, 400) == "token_invalid"
    assert (await client.post(f"{AUTH}/login", json=GOOD | {"password": NEW})).status_code == 200


async def test_a_change_by_the_current_password(client: httpx.AsyncClient, access_token: str) -> None:
    """204 and the caller stays logged in; wrong passwords get 401 and then 429, a weak one 422, no token 401."""
    change = f"{AUTH}/password/change"
    bearer = {"Authorization": f"Bearer {access_token}"}
    good = {"current_password": GOOD["password"], "new_password": NEW}
    assert code_of(await client.post(change, json=good), 401) == "unauthenticated"
    weak = await client.post(change, json=good | {"new_password": "short"}, headers=bearer)
    assert code_of(weak, 422) == "weak_password"
    assert (await client.post(change, json=good, headers=bearer)).status_code == 204
    assert (await client.get(f"{AUTH}/me", headers=bearer)).status_code == 200
    for _ in range(5):
        answer = await client.post(change, json=good, headers=bearer)
        assert code_of(answer, 401) == "invalid_credentials"
        assert "invalid_token" not in answer.headers["www-authenticate"], "the token is good"
    locked = await client.post(change, json=good, headers=bearer)
    assert code_of(locked, 429) == "login_locked"
    assert int(locked.headers["retry-after"]) >= 1


@pytest.mark.parametrize("route", ["password/forgot", "password/reset", "password/change", "reauthenticate"])
@pytest.mark.parametrize(
    ("body", "code"), [(b"{", "malformed_body"), (b"{}", "validation_failed"), (b'{"roles":[]}', "validation_failed")]
)
async def test_bad_bodies_are_refused(
    client: httpx.AsyncClient, access_token: str, route: str, body: bytes, code: str
) -> None:
    """Invalid JSON gets 400, missing and unknown fields get 422."""
    headers = {"Authorization": f"Bearer {access_token}", "Content-Type": "application/json"}
    answer = await client.post(f"{AUTH}/{route}", content=body, headers=headers)
    assert code_of(answer, 400 if code == "malformed_body" else 422) == code

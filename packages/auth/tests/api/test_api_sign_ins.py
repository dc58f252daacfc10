"""The link of the mail about a sign-in, over HTTP."""

import httpx
import pytest

from tequipy_auth import Auth
from tequipy_auth.testing import MemoryAuthUnitOfWork

from .routes import AUTH, ME, REFRESH, bearer, code_of, log_in, mailed_tokens

END = f"{AUTH}/sessions/end"


@pytest.mark.usefixtures("user")
async def test_the_mailed_link_ends_the_session(
    client: httpx.AsyncClient, auth: Auth, work: MemoryAuthUnitOfWork
) -> None:
    """204 without a bearer; the session is refused from then on, a link to reset is mailed, and the link works once."""
    mine = bearer(await log_in(client))
    assert await mailed_tokens(auth, work) == {}
    client.cookies.clear()
    thief = await log_in(client, token_delivery="body")
    link = {"token": (await mailed_tokens(auth, work))["end-session"]}
    answer = await client.post(END, json=link)
    assert (answer.status_code, answer.content) == (204, b"")
    assert code_of(await client.get(ME, headers=bearer(thief)), 401) == "invalid_token"
    refused = await client.post(REFRESH, json={"refresh_token": thief.json()["refresh_token"]})
    assert code_of(refused, 401) == "session_revoked"
    assert (await client.get(ME, headers=mine)).status_code == 200
    assert (await mailed_tokens(auth, work)).keys() == {"reset-password"}
    for wrong in (link, {"token": "ev1.x.y"}):
        assert code_of(await client.post(END, json=wrong), 400) == "token_invalid"


@pytest.mark.parametrize(
    ("body", "code"), [(b"{", "malformed_body"), (b"{}", "validation_failed"), (b'{"roles":[]}', "validation_failed")]
)
async def test_bad_bodies_are_refused(client: httpx.AsyncClient, body: bytes, code: str) -> None:
    """Invalid JSON gets 400, missing and unknown fields get 422."""
    answer = await client.post(END, content=body, headers={"Content-Type": "application/json"})
    assert code_of(answer, 400 if code == "malformed_body" else 422) == code

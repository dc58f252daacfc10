"""The session against a model of the API: one refresh for many requests, the end of a session, what is kept."""

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator

import httpx
import pytest

from tequipy_client import Credentials, ProblemError, Session, SessionEnded, Unauthenticated
from tequipy_client.contract.api import accounts_and_sessions as accounts

from .api import PASSWORD, Api, problem

URL = "https://api.example.com"


async def test_twenty_requests_over_an_expired_token_cause_one_refresh(api: Api, session: Session) -> None:
    """Twenty concurrent requests are refused, share one refresh, and each is sent once more."""
    api.expired = True
    found = await asyncio.gather(*(accounts.get_me(session.http) for _ in range(20)))
    assert [me.email for me in found] == ["ada@example.com"] * 20
    assert (api.calls["refresh"], api.calls["me"]) == (1, 40)


async def test_a_cancelled_request_does_not_cancel_the_refresh_of_others(api: Api, session: Session) -> None:
    """The refresh goes on for a second request when the one that began it is cancelled."""
    api.expired = True
    api.refreshing.clear()
    first = asyncio.create_task(accounts.get_me(session.http))
    while not api.calls["refresh"]:
        await asyncio.sleep(0)
    second = asyncio.create_task(accounts.get_me(session.http))
    while api.calls["me"] < 2:
        await asyncio.sleep(0)
    first.cancel()
    api.refreshing.set()
    assert (await second).email == "ada@example.com"
    assert api.calls["refresh"] == 1


async def test_a_request_is_repeated_once(api: Api, session: Session) -> None:
    """An API that refuses the new token too gets no third request."""
    api.answers["me"] = [problem(401, "invalid_token") for _ in range(3)]
    with pytest.raises(Unauthenticated, match="invalid_token"):
        await accounts.get_me(session.http)
    assert (api.calls["refresh"], api.calls["me"]) == (1, 2)


async def test_a_wrong_password_causes_no_refresh(api: Api, session: Session) -> None:
    """Other reasons of 401 than the access token go to the caller at once."""
    with pytest.raises(Unauthenticated, match="invalid_credentials"):
        await session.reauthenticate("wrong")
    assert api.calls["refresh"] == 0


@pytest.mark.parametrize(
    "code", ["refresh_invalid", "refresh_expired", "refresh_superseded", "refresh_reused", "session_revoked"]
)
async def test_a_session_that_has_ended_is_said_to_each_request(api: Api, session: Session, code: str) -> None:
    """A refused refresh ends the session: requests raise `SessionEnded` until a login."""
    api.expired = True
    api.answers["refresh"] = [problem(401, code)]
    found = await asyncio.gather(*(accounts.get_me(session.http) for _ in range(5)), return_exceptions=True)
    with pytest.raises(SessionEnded, match=code):
        await accounts.get_me(session.http)
    assert [type(error) for error in found] == [SessionEnded] * 5
    assert api.calls["refresh"] == 1
    await session.login("ada@example.com", PASSWORD)
    assert (await accounts.get_me(session.http)).email == "ada@example.com"


async def test_a_refresh_without_an_answer_is_sent_again(api: Api, session: Session) -> None:
    """A refresh whose answer is lost is sent once more at once; if that fails too, the session is kept."""
    api.lost_answers = 1
    await session.refresh()
    assert (session.credentials.refresh_token, api.calls["refresh"]) == ("refresh-2", 2)
    api.lost_answers = 2
    with pytest.raises(httpx.ReadError):
        await session.refresh()
    await session.refresh()


async def test_a_login_during_a_refresh_is_kept(api: Api, session: Session) -> None:
    """A refresh that is refused because of a newer login neither fails nor ends the session of that login."""
    api.refreshing.clear()
    refresh = asyncio.create_task(session.refresh())
    while not api.calls["refresh"]:
        await asyncio.sleep(0)
    await session.login("ada@example.com", PASSWORD)
    newest = session.credentials
    api.refreshing.set()
    await refresh
    assert session.credentials == newest
    assert (await accounts.get_me(session.http)).email == "ada@example.com"


async def test_a_session_continues_elsewhere(api: Api, session: Session) -> None:
    """A second session object goes on with the refresh token alone."""
    kept = Credentials(refresh_token=session.credentials.refresh_token)
    async with Session(URL, credentials=kept, transport=api.transport) as other:
        assert (await accounts.get_me(other.http)).email == "ada@example.com"
        assert other.credentials.access_token == "access-2"


async def test_a_logout_keeps_the_device_token_alone(api: Api, session: Session) -> None:
    """The next login sends the device token; requests after a logout say that there is no login."""
    await session.logout()
    assert session.credentials == Credentials(device_token="device-1")
    with pytest.raises(Unauthenticated) as raised:
        await accounts.get_me(session.http)
    assert not isinstance(raised.value, SessionEnded)
    await session.login("ada@example.com", PASSWORD)
    assert [body.get("device_token") for path, body in api.bodies if path == "login"] == [None, "device-1"]
    assert [body for path, body in api.bodies if path == "logout"] == [{"refresh_token": "refresh-1"}]


async def test_a_reauthentication_replaces_the_tokens(api: Api, session: Session) -> None:
    """The session goes on with the tokens of the answer, because the API has ended the earlier ones."""
    await session.reauthenticate(PASSWORD)
    assert session.credentials.refresh_token == "refresh-2"
    assert (await accounts.get_me(session.http)).email == "ada@example.com"
    assert api.calls["refresh"] == 0


async def test_no_secret_is_shown(api: Api, session: Session) -> None:
    """Neither `repr` nor an exception with its traceback shows a token or a password."""
    api.answers["me"] = [problem(401, "invalid_token")]
    api.answers["refresh"] = [problem(401, "refresh_expired")]
    shown = [repr(session), repr(session.credentials), repr(session.http)]
    with pytest.raises(SessionEnded) as raised:
        await accounts.get_me(session.http)
    shown += [repr(raised.value), str(raised.value), "".join(traceback.format_exception(raised.value))]
    assert not [
        text for text in shown if any(secret in text for secret in ("access-", "refresh-", "device-", PASSWORD))
    ]


async def test_an_exception_can_be_pickled(api: Api, session: Session) -> None:
    """A process pool hands the exception over with its code."""
    api.answers["me"] = [problem(403, "forbidden")]
    with pytest.raises(ProblemError) as raised:
        await accounts.get_me(session.http)
    assert pickle.loads(pickle.dumps(raised.value)).code == "forbidden"  # noqa: S301 -- our own


async def test_the_end_waits_for_a_running_refresh(api: Api) -> None:
    """A refresh that goes on after its callers were cancelled is finished first, so that its tokens are kept."""
    async with Session(URL, transport=api.transport) as session:
        await session.login("ada@example.com", PASSWORD)
        api.expired = True
        api.refreshing.clear()
        call = asyncio.create_task(accounts.get_me(session.http))
        while not api.calls["refresh"]:
            await asyncio.sleep(0)
        call.cancel()
        asyncio.get_running_loop().call_soon(api.refreshing.set)
    assert session.credentials.refresh_token == "refresh-2"


async def test_a_request_is_not_repeated_for_another_login(api: Api, session: Session) -> None:
    """A request that was refused before a new login, maybe of another account, is not sent with its token."""
    api.expired = True
    api.refreshing.clear()
    call = asyncio.create_task(accounts.get_me(session.http))
    while not api.calls["refresh"]:
        await asyncio.sleep(0)
    await session.login("bob@example.com", PASSWORD)
    api.refreshing.set()
    with pytest.raises(Unauthenticated, match="invalid_token"):
        await call
    assert api.calls["me"] == 1


async def test_a_login_during_a_logout_is_kept(api: Api, session: Session) -> None:
    """A logout ends the session that there was when it was called."""
    api.answering_logouts.clear()
    logout = asyncio.create_task(session.logout())
    while not api.calls["logout"]:
        await asyncio.sleep(0)
    login = asyncio.create_task(session.login("bob@example.com", PASSWORD))
    while api.number < 2:
        await asyncio.sleep(0)
    api.answering_logouts.set()
    await asyncio.gather(logout, login)
    assert session.credentials.refresh_token == "refresh-2"


async def test_a_body_that_can_be_read_once_is_not_repeated(api: Api, session: Session) -> None:
    """A streamed request gets its refusal, and the next request has a new access token."""

    async def body() -> AsyncIterator[bytes]:
        yield b"{}"

    api.expired = True
    assert (await session.http.put("/api/v1/files/upload", content=body())).status_code == 401
    assert (await session.http.put("/api/v1/files/upload", content=body())).status_code == 200
    assert (api.calls["upload"], api.calls["refresh"]) == (2, 1)


async def test_another_host_gets_no_token(api: Api, session: Session) -> None:
    """Requests to an absolute address of another origin have no access token, and cause no refresh."""
    api.expired = True
    assert (await session.http.get("https://other.example.com/me")).status_code == 401
    assert (await session.http.get("http://api.example.com/me")).status_code == 401
    assert api.authorizations == [None, None]
    assert (api.calls["refresh"], api.calls["me"]) == (0, 2)


@pytest.mark.parametrize("status", [502, 504])
async def test_a_refresh_whose_answer_a_gateway_lost_is_sent_again(api: Api, session: Session, status: int) -> None:
    """A gateway that got no answer from the API does not tell whether the refresh token was replaced."""
    api.answers["refresh"] = [httpx.Response(status)]
    await session.refresh()
    assert (session.credentials.refresh_token, api.calls["refresh"]) == ("refresh-2", 2)

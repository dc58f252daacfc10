"""Conformance cases for refresh tokens, their cookie, and the end of sessions."""

import asyncio
import time
from datetime import timedelta

import httpx
import pytest

from tequipy_auth.conformance.target import Browser, Target, browser, link_of, owner, problem

GRACE = timedelta(seconds=60)
MOMENT = timedelta(seconds=1)


async def eventually_refused(person: Browser, token: str) -> None:
    """Wait up to 5 seconds until an access token is rejected."""
    deadline = time.monotonic() + 5
    while (answer := await person.get("me", token)).status_code != 401:
        assert time.monotonic() < deadline, "the access token of an ended session is still accepted"
        await asyncio.sleep(0.01)
    assert problem(answer, 401) == "invalid_token"


def deletes_cookie(answer: httpx.Response, target: Target) -> bool:
    """Return whether a response deletes the refresh cookie."""
    return any(
        header.startswith(f"{target.cookie}=") and "max-age=0" in header.lower()
        for header in answer.headers.get_list("set-cookie")
    )


@pytest.mark.asyncio
class TestSessions:
    """Users are not logged out by accident, and stolen tokens do not work for long."""

    async def test_the_cookie_is_hardened(self, auth_target: Target) -> None:
        """The cookie has all protective attributes (`Secure` only with `__Host-`); the response is not cached."""
        async with owner(auth_target) as person:
            answer = await person.log_in()
            (header,) = [
                header
                for header in answer.headers.get_list("set-cookie")
                if header.startswith(f"{auth_target.cookie}=rt1.")
            ]
            attributes = {part.strip().lower() for part in header.split(";")}
            assert {"httponly", "samesite=strict", "path=/"} <= attributes
            assert "secure" in attributes or not auth_target.cookie.startswith("__Host-")
            assert not any(attribute.startswith("domain") for attribute in attributes)
            assert answer.headers["cache-control"] == "no-store"
            assert "rt1." not in answer.text

    async def test_every_refresh_rotates(self, auth_target: Target) -> None:
        """Each refresh returns a new token of the same session."""
        async with owner(auth_target) as person:
            tokens = [person.token]
            for _ in range(3):
                assert (await person.refresh()).status_code == 200
                tokens.append(person.token)
            assert len(set(tokens)) == 4
            assert len((await person.get("sessions")).json()["items"]) == 1

    async def test_parallel_refreshes_get_the_same_token(self, auth_target: Target) -> None:
        """20 parallel refreshes of one cookie return the same successor, which then works."""
        async with owner(auth_target) as person:
            old = person.token
            answers = await asyncio.gather(*(person.refresh(old) for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            (successor,) = {answer.cookies[auth_target.cookie] for answer in answers}
            assert (await person.refresh(successor)).status_code == 200

    async def test_a_lost_response_can_be_requested_again(self, auth_target: Target) -> None:
        """A refresh can be repeated after 30 s, because its response may have been lost."""
        async with owner(auth_target) as person:
            old = person.token
            lost = await person.refresh(old)
            await auth_target.pass_time(timedelta(seconds=30))
            again = await person.refresh(old)
            assert again.status_code == 200
            assert again.cookies[auth_target.cookie] == lost.cookies[auth_target.cookie]

    async def test_a_superseded_token_ends_no_session(self, auth_target: Target) -> None:
        """A token whose successor was used gets 401 `refresh_superseded`; cookie and session stay valid."""
        async with owner(auth_target) as person:
            old = person.token
            for _ in range(2):
                assert (await person.refresh()).status_code == 200
            answer = await person.refresh(old)
            assert problem(answer, 401) == "refresh_superseded"
            assert "set-cookie" not in answer.headers
            assert (await person.refresh()).status_code == 200

    @pytest.mark.parametrize("steps", [1, 2])
    async def test_a_stolen_token_ends_the_session(self, auth_target: Target, steps: int) -> None:
        """A used token after the grace period ends the session everywhere, deletes the cookie, notifies the owner."""
        async with owner(auth_target) as person, browser(auth_target, like=person, process=1) as elsewhere:
            stolen = person.token
            fresh = [(await person.refresh()).json()["access_token"] for _ in range(steps)]
            await auth_target.pass_time(GRACE + MOMENT)
            before = len(await auth_target.mails(person.email))
            answer = await person.refresh(stolen)
            assert problem(answer, 401) == "refresh_reused"
            assert deletes_cookie(answer, auth_target)
            await eventually_refused(elsewhere, fresh[-1])
            assert problem(await person.refresh(), 401) == "session_revoked"
            assert len(await auth_target.mails(person.email)) == before + 1

    async def test_a_reauthentication_replaces_the_session(self, auth_target: Target) -> None:
        """A token that was copied before is superseded for a minute, then `session_revoked`; the new session stays."""
        async with owner(auth_target) as person:
            copied, earlier = person.token, person.access_token
            bearer = {"Authorization": f"Bearer {earlier}"}
            answer = await person.post("reauthenticate", {"password": person.password}, headers=bearer)
            assert answer.status_code == 200
            await eventually_refused(person, earlier)
            person.access_token = answer.json()["access_token"]
            assert [item["current"] for item in (await person.get("sessions")).json()["items"]] == [True]
            answer = await person.refresh(copied)
            assert problem(answer, 401) == "refresh_superseded"
            assert "set-cookie" not in answer.headers
            assert (await person.refresh()).status_code == 200
            await auth_target.pass_time(GRACE + MOMENT)
            answer = await person.refresh(copied)
            assert problem(answer, 401) == "session_revoked"
            assert deletes_cookie(answer, auth_target)
            assert (await person.refresh()).status_code == 200

    async def test_guessing_does_not_use_the_token(self, auth_target: Target) -> None:
        """A wrong or malformed token gets 401 `refresh_invalid`; the cookie stays and still works."""
        async with owner(auth_target) as person:
            head, secret = person.token.rsplit(".", 1)
            for wrong in (f"{head}.{'A' * len(secret)}", "rt1.x.y", "rubbish", f"{person.token}x"):
                answer = await person.refresh(wrong)
                assert problem(answer, 401) == "refresh_invalid"
                assert "set-cookie" not in answer.headers
            assert (await person.refresh()).status_code == 200
            person.client.cookies.clear()
            assert problem(await person.refresh(), 401) == "refresh_missing"

    async def test_idle_sessions_end(self, auth_target: Target) -> None:
        """A session without a refresh ends after a week."""
        async with owner(auth_target) as person:
            await auth_target.pass_time(timedelta(days=7))
            assert problem(await person.refresh(person.token), 401) == "refresh_expired"

    async def test_refreshed_sessions_end_too(self, auth_target: Target) -> None:
        """A session ends a month after the login, even if it is refreshed regularly."""
        async with owner(auth_target) as person:
            # Sent explicitly, because the cookie jar uses the real time.
            token = person.token
            for _ in range(5):
                await auth_target.pass_time(timedelta(days=5))
                answer = await person.refresh(token)
                assert answer.status_code == 200
                token = answer.cookies[auth_target.cookie]
            await auth_target.pass_time(timedelta(days=5))
            assert problem(await person.refresh(token), 401) == "refresh_expired"

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Content-Type": "text/plain"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("route", ["refresh", "logout"])
    async def test_other_sites_cannot_use_the_cookie(
        self, auth_target: Target, route: str, headers: dict[str, str]
    ) -> None:
        """Requests of other sites get 403 `csrf_failed`; the token stays unused and the session continues."""
        async with owner(auth_target) as person:
            headers = {"Content-Type": "application/json"} | headers
            answer = await person.client.post(f"{auth_target.prefix}/{route}", headers=headers)
            assert problem(answer, 403) == "csrf_failed"
            assert "set-cookie" not in answer.headers
            assert (await person.refresh()).status_code == 200

    async def test_forms_are_refused(self, auth_target: Target) -> None:
        """Content types of HTML forms get 415."""
        async with owner(auth_target) as person:
            for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                answer = await person.client.post(f"{auth_target.prefix}/refresh", headers={"Content-Type": kind})
                assert problem(answer, 415) == "unsupported_media_type"
            assert (await person.refresh()).status_code == 200

    async def test_two_credentials_are_ambiguous(self, auth_target: Target) -> None:
        """A request with a token in the cookie and in the body gets 400, and neither token is used."""
        async with owner(auth_target) as person:
            body = (await person.log_in(token_delivery="body")).json()["refresh_token"]
            answer = await person.post("refresh", {"refresh_token": body})
            assert problem(answer, 400) == "ambiguous_credentials"
            assert (await person.refresh()).status_code == 200

    async def test_logout_ends_the_access_token_everywhere(self, auth_target: Target) -> None:
        """Logout ends the refresh token and, in every process, the access token; a repeated logout gets 204 too."""
        async with owner(auth_target) as person, browser(auth_target, like=person, process=1) as elsewhere:
            kept = person.token
            assert (await elsewhere.get("me", person.access_token)).status_code == 200
            answer = await person.post("logout")
            assert answer.status_code == 204
            assert deletes_cookie(answer, auth_target)
            await eventually_refused(elsewhere, person.access_token)
            assert problem(await person.refresh(kept), 401) == "session_revoked"
            assert (await person.post("logout")).status_code == 204

    @pytest.mark.parametrize(("route", "mine_lives"), [("logout-all", False), ("logout-others", True)])
    async def test_logging_out_of_several_sessions(self, auth_target: Target, route: str, mine_lives: bool) -> None:  # noqa: FBT001 -- a case
        """`logout-all` ends all sessions of the user, `logout-others` all but the current one."""
        async with owner(auth_target) as person, browser(auth_target, like=person) as phone:
            assert (await phone.log_in()).status_code == 200
            assert (await person.send("POST", route)).status_code == 204
            await eventually_refused(phone, phone.access_token)
            assert problem(await phone.refresh(), 401) == "session_revoked"
            assert (await person.get("me")).status_code == (200 if mine_lives else 401)

    async def test_users_end_only_their_own_sessions(self, auth_target: Target) -> None:
        """Users can list and end their own sessions; sessions of others are not found."""
        async with owner(auth_target) as person, owner(auth_target) as stranger:
            (mine,) = (await person.get("sessions")).json()["items"]
            assert mine["current"] is True
            assert problem(await stranger.send("DELETE", f"sessions/{mine['id']}"), 404) == "not_found"
            assert (await person.get("me")).status_code == 200
            assert (await person.send("DELETE", f"sessions/{mine['id']}")).status_code == 204
            await eventually_refused(person, person.access_token)

    async def test_a_further_session_ends_the_oldest(self, auth_target: Target) -> None:
        """A user has at most 20 sessions; the 21st login ends the first one."""
        async with owner(auth_target) as person, browser(auth_target, like=person) as other:
            for _ in range(20):
                assert (await other.log_in()).status_code == 200
            assert len((await other.get("sessions")).json()["items"]) == 20
            await eventually_refused(person, person.access_token)
            assert problem(await person.refresh(), 401) == "session_revoked"

    async def test_a_login_from_a_new_device_is_mailed(self, auth_target: Target) -> None:
        """The first login is not mailed; one from another device is, with a link that ends its session, once."""
        async with owner(auth_target) as person, browser(auth_target, like=person) as thief:
            assert "end-session" not in "".join(await auth_target.mails(person.email))
            assert (await person.log_in()).status_code == 200
            assert "end-session" not in "".join(await auth_target.mails(person.email)), "the device is known"
            assert (await thief.log_in()).status_code == 200
            link = await link_of(auth_target, person.email, "end-session")
            assert (await person.post("sessions/end", link)).status_code == 204
            assert problem(await thief.get("me"), 401) == "invalid_token"
            assert problem(await thief.refresh(), 401) == "session_revoked"
            assert (await person.refresh()).status_code == 200
            assert problem(await person.post("sessions/end", link), 400) == "token_invalid"
            reset = await link_of(auth_target, person.email, "reset-password")
            answer = await person.post("password/reset", reset | {"new_password": "another horse entirely"})
            assert answer.status_code == 204

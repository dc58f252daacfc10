"""Conformance cases for changes of an account's address."""

from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from tequipy_auth.conformance.target import Browser, Target, browser, link_of, owner, problem


def new_address() -> str:
    """Return an address without an account."""
    return f"{uuid4().hex}@example.net"


async def request_change(person: Browser, email: str) -> httpx.Response:
    """Request a change of the person's address."""
    bearer = {"Authorization": f"Bearer {person.access_token}"}
    return await person.post("email/change", {"new_email": email}, headers=bearer)


@pytest.mark.asyncio
class TestEmailChanges:
    """A new address must be confirmed, and the owner of the old one can undo the change."""

    async def test_a_new_address_must_be_confirmed(self, auth_target: Target) -> None:
        """The address changes when the link to the new one is used, once; the session continues."""
        async with owner(auth_target) as person:
            email = new_address()
            assert (await request_change(person, email)).status_code == 202
            link = await link_of(auth_target, email, "confirm-email")
            assert (await person.get("me")).json()["email"] == person.email
            assert (await person.post("email/confirm", link)).status_code == 204
            assert (await person.get("me")).json()["email"] == email
            assert problem(await person.post("email/confirm", link), 400) == "token_invalid"
            assert problem(await person.log_in(), 401) == "invalid_credentials"
            assert (await person.log_in(email=email)).status_code == 200

    async def test_the_old_address_undoes_the_change(self, auth_target: Target) -> None:
        """The link to the old address restores it after two changes, ends all sessions and the later link."""
        async with owner(auth_target) as person:
            email, other = new_address(), new_address()
            for address in (email, other):
                assert (await request_change(person, address)).status_code == 202
                link = await link_of(auth_target, address, "confirm-email")
                assert (await person.post("email/confirm", link)).status_code == 204
            undo = await link_of(auth_target, person.email, "undo-email")
            later = await link_of(auth_target, email, "undo-email")
            assert (await person.post("email/undo", undo)).status_code == 204
            assert problem(await person.get("me"), 401) == "invalid_token"
            assert problem(await person.refresh(), 401) == "session_revoked"
            for link in (undo, later):
                assert problem(await person.post("email/undo", link), 400) == "token_invalid"
            assert (await person.log_in()).status_code == 200
            assert (await person.get("me")).json()["email"] == person.email

    async def test_a_taken_address_is_answered_alike(self, auth_target: Target) -> None:
        """A taken and a free address get the same response, and the taken one gets no link."""
        async with owner(auth_target) as person, owner(auth_target) as other:
            answers = [await request_change(person, email) for email in (other.email, new_address())]
            assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
            assert "confirm-email" not in "".join(await auth_target.mails(other.email))

    async def test_the_old_address_is_not_given_away(self, auth_target: Target) -> None:
        """While the change can be undone, a registration of the old address creates no account."""
        async with owner(auth_target) as person, browser(auth_target, like=person) as thief:
            email = new_address()
            assert (await request_change(person, email)).status_code == 202
            confirm = await link_of(auth_target, email, "confirm-email")
            undo = await link_of(auth_target, person.email, "undo-email")
            assert (await person.post("email/confirm", confirm)).status_code == 204
            assert (await thief.register()).status_code in {202, 409}
            assert "already" in (await auth_target.mails(person.email))[-1]
            assert (await person.post("email/undo", undo)).status_code == 204

    async def test_a_change_needs_fresh_authentication(self, auth_target: Target) -> None:
        """Five minutes after the login the password must be confirmed first."""
        async with owner(auth_target) as person:
            await auth_target.pass_time(timedelta(minutes=5))
            assert problem(await request_change(person, new_address()), 401) == "reauth_required"

    async def test_the_links_expire(self, auth_target: Target) -> None:
        """The link to the new address expires after an hour, the one to the old address after seven days."""
        async with owner(auth_target) as person:
            email = new_address()
            assert (await request_change(person, email)).status_code == 202
            confirm = await link_of(auth_target, email, "confirm-email")
            undo = await link_of(auth_target, person.email, "undo-email")
            await auth_target.pass_time(timedelta(hours=1))
            assert problem(await person.post("email/confirm", confirm), 400) == "token_invalid"
            await auth_target.pass_time(timedelta(days=7))
            assert problem(await person.post("email/undo", undo), 400) == "token_invalid"

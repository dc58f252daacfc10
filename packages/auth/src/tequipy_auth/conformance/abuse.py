"""Conformance cases for guessing, enumeration and takeover of accounts."""

import asyncio
from datetime import timedelta

import pytest

from tequipy_auth.conformance.target import Browser, Target, browser, owner, problem

WRONG = "wrong horse battery staple"


async def lock(target: Target, victim: Browser) -> None:
    """Guess passwords from many clients until the account is locked for a client without failures of its own."""
    for _ in range(20):
        async with browser(target, like=victim) as stranger:
            answer = await stranger.log_in(password=WRONG)
            if answer.status_code == 429:
                return
            assert problem(answer, 401) == "invalid_credentials"
    async with browser(target, like=victim) as stranger:
        assert problem(await stranger.log_in(), 429) == "login_locked", "20 failures from anywhere lock the account"


@pytest.mark.asyncio
class TestAbuse:
    """Attackers cannot enumerate accounts, guess passwords or take over accounts."""

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    async def test_guessing_is_locked(self, auth_target: Target, known: bool) -> None:  # noqa: FBT001 -- a case
        """Five failures get 401, then attempts get 429 with `Retry-After`, whether the account exists or not."""
        async with owner(auth_target) as somebody, browser(auth_target) as guesser:
            guesser.email = somebody.email if known else guesser.email
            for _ in range(5):
                assert problem(await guesser.log_in(password=WRONG), 401) == "invalid_credentials"
            answer = await guesser.log_in(password=WRONG)
            assert problem(answer, 429) == "login_locked"
            assert int(answer.headers["retry-after"]) >= 1
            assert problem(await guesser.log_in(), 429) == "login_locked", "the right password too"

    async def test_a_lock_ends(self, auth_target: Target) -> None:
        """The correct password works again after half a minute; attempts during the lock do not extend it."""
        async with owner(auth_target) as somebody, browser(auth_target, like=somebody) as guesser:
            for _ in range(10):
                await guesser.log_in(password=WRONG)
            await auth_target.pass_time(timedelta(seconds=31))
            assert (await guesser.log_in()).status_code == 200

    async def test_the_owner_is_not_locked_out(self, auth_target: Target) -> None:
        """Attempts with a device mark (cookie or `device_token`) or in a session have their own counters."""
        async with owner(auth_target) as somebody, browser(auth_target, like=somebody) as program:
            body = {"token_delivery": "body"}
            marked = body | {"device_token": (await program.log_in(**body)).json()["device_token"]}
            await lock(auth_target, somebody)
            assert (await somebody.log_in()).status_code == 200
            assert (await program.log_in(**marked)).status_code == 200
            bearer = {"Authorization": f"Bearer {somebody.access_token}"}
            answer = await somebody.post("reauthenticate", {"password": somebody.password}, headers=bearer)
            assert answer.status_code == 200
            bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            change = {"current_password": somebody.password, "new_password": "another good horse"}
            assert (await somebody.post("password/change", change, headers=bearer)).status_code == 204

    async def test_a_mark_does_not_bypass_the_lock(self, auth_target: Target) -> None:
        """Five failures with a device mark lock it, and failures with four marks lock the account for other clients."""
        async with owner(auth_target) as somebody, browser(auth_target, like=somebody) as stranger:
            for _ in range(4):
                async with browser(auth_target, like=somebody) as device:
                    mark = (await device.log_in(token_delivery="body")).json()["device_token"]
                for _ in range(5):
                    answer = await stranger.log_in(password=WRONG, token_delivery="body", device_token=mark)
                    assert problem(answer, 401) == "invalid_credentials"
                answer = await stranger.log_in(token_delivery="body", device_token=mark)
                assert problem(answer, 429) == "login_locked"
            assert problem(await stranger.log_in(), 429) == "login_locked"
            assert (await somebody.log_in()).status_code == 200, "the browser has a mark of its own"

    async def test_a_new_password_ends_the_marks(self, auth_target: Target) -> None:
        """After a password change earlier device marks are invalid, and their clients can be locked out."""
        async with owner(auth_target) as somebody:
            bearer = {"Authorization": f"Bearer {somebody.access_token}"}
            change = {"current_password": somebody.password, "new_password": "another good horse"}
            assert (await somebody.post("password/change", change, headers=bearer)).status_code == 204
            somebody.password = "another good horse"
            await lock(auth_target, somebody)
            assert problem(await somebody.log_in(), 429) == "login_locked"

    async def test_a_reset_works_under_attack(self, auth_target: Target) -> None:
        """A password reset ends the lock, and attackers cannot lock the owner out again before the next login."""
        if not auth_target.own_addresses:
            pytest.skip("all clients of this target have one address")
        async with owner(auth_target) as somebody:
            await lock(auth_target, somebody)
            assert (await somebody.post("password/forgot", {"email": somebody.email})).status_code == 202
            somebody.client.cookies.clear()
            body = {"token": await somebody.mailed_token(), "new_password": "another good horse"}
            assert (await somebody.post("password/reset", body)).status_code == 204
            somebody.password = "another good horse"
            await lock(auth_target, somebody)
            assert (await somebody.log_in()).status_code == 200

    async def test_few_parallel_guesses_are_checked(self, auth_target: Target) -> None:
        """At most 5 of 50 parallel guesses are checked."""
        async with owner(auth_target) as somebody, browser(auth_target, like=somebody) as guesser:
            answers = await asyncio.gather(*(guesser.log_in(password=WRONG) for _ in range(50)))
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) <= {401, 429, 503}
            assert statuses.count(401) <= 5

    async def test_known_and_unknown_addresses_answer_alike(self, auth_target: Target) -> None:
        """Login, registration and password reset responses do not reveal whether an account exists."""
        async with owner(auth_target) as somebody, browser(auth_target) as stranger:
            for route, body in (
                ("login", {"password": WRONG}),
                ("register", {"password": "another good horse"}),
                ("password/forgot", {}),
                ("verify-email/resend", {}),
            ):
                known = await stranger.post(route, body | {"email": somebody.email})
                unknown = await stranger.post(route, body | {"email": stranger.email})
                assert known.status_code == unknown.status_code
                parts = [answer.json() for answer in (known, unknown)]
                for part in parts:
                    part.pop("correlation_id", None)
                assert parts[0] == parts[1]

    async def test_nobody_can_register_for_another_person(self, auth_target: Target) -> None:
        """A person who registers another person's address gets no access when the owner verifies it.

        While both registrations are pending, a link requires the password of its own registration: without a password
        the response is 401 `password_required`, with another one 401 `invalid_credentials`.
        """
        async with browser(auth_target) as victim, browser(auth_target, like=victim) as eve:
            eve.password = "eve's own long password"
            assert (await victim.register()).is_success
            victims = await victim.mailed_token()
            assert (await eve.register()).is_success
            assert problem(await victim.verify(), 401) == "password_required"
            assert problem(await victim.verify(password=victim.password), 401) == "invalid_credentials"
            body = {"token": victims, "password": victim.password}
            assert (await victim.post("verify-email", body)).status_code == 204
            assert problem(await eve.log_in(), 401) == "invalid_credentials"
            assert (await victim.log_in()).status_code == 200

    async def test_a_requested_link_is_never_an_attackers(self, auth_target: Target) -> None:
        """While an address has several pending registrations, another mail has no link; registering again sends one."""
        async with browser(auth_target) as victim, browser(auth_target, like=victim) as eve:
            eve.password = "eve's own long password"
            assert (await victim.register()).is_success
            assert (await eve.register()).is_success
            before = len(await auth_target.mails(victim.email))
            assert (await victim.post("verify-email/resend", {"email": victim.email})).status_code == 202
            (mail,) = (await auth_target.mails(victim.email))[before:]
            assert "#token=" not in mail
            assert (await victim.register()).is_success
            assert (await victim.verify(password=victim.password)).status_code == 204
            assert problem(await eve.log_in(), 401) == "invalid_credentials"

    async def test_a_contested_link_allows_five_attempts(self, auth_target: Target) -> None:
        """After five wrong passwords the response is 400 `token_invalid`, even for the correct password."""
        async with browser(auth_target) as victim:
            for _ in range(2):
                assert (await victim.register()).is_success
            for _ in range(5):
                assert problem(await victim.verify(password=WRONG), 401) == "invalid_credentials"
            assert problem(await victim.verify(password=victim.password), 400) == "token_invalid"

    async def test_the_number_of_mails_is_limited(self, auth_target: Target) -> None:
        """Eight registrations of one address get the same response, and at most five mails are sent."""
        async with browser(auth_target) as victim:
            answers = [await victim.register() for _ in range(8)]
            assert {answer.status_code for answer in answers} <= {202, 201, 409}
            assert len(await auth_target.mails(victim.email)) <= 5

    async def test_resends_do_not_use_up_resets(self, auth_target: Target) -> None:
        """Requests for another link to a verified address send no mail and leave the budget for resets unchanged."""
        async with owner(auth_target) as somebody, browser(auth_target) as stranger:
            before = len(await auth_target.mails(somebody.email))
            for _ in range(6):
                answer = await stranger.post("verify-email/resend", {"email": somebody.email})
                assert answer.status_code == 202
            assert (await somebody.post("password/forgot", {"email": somebody.email})).status_code == 202
            (mail,) = (await auth_target.mails(somebody.email))[before:]
            assert "/reset-password#token=" in mail

    async def test_one_address_is_one_account(self, auth_target: Target) -> None:
        """20 parallel registrations of one address in several spellings create one account."""
        async with browser(auth_target) as person:
            local, _, domain = person.email.partition("@")
            spellings = [person.email, person.email.upper(), f" {local}@{domain.title()} "]
            body = {"password": person.password}
            answers = await asyncio.gather(
                *(person.post("register", body | {"email": spellings[number % 3]}) for number in range(20))
            )
            assert all(answer.is_success or answer.status_code == 409 for answer in answers)
            assert (await person.verify(password=person.password)).status_code == 204
            for spelling in spellings:
                assert (await person.log_in(email=spelling)).status_code == 200

    async def test_a_mailed_token_works_once(self, auth_target: Target) -> None:
        """A mailed token that was used, changed or has another purpose gets 400 `token_invalid`."""
        async with browser(auth_target) as person:
            assert (await person.register()).is_success
            token = await person.mailed_token()
            for wrong in ("", "ev1.x.y", token[:-1] + ("A" if token[-1] != "A" else "B"), f"{token}x"):
                assert problem(await person.post("verify-email", {"token": wrong}), 400) == "token_invalid"
            body = {"token": token, "new_password": "another good horse"}
            assert problem(await person.post("password/reset", body), 400) == "token_invalid"
            body = {"token": token, "password": person.password}
            assert problem(await person.post("accept-invitation", body), 400) == "token_invalid"
            assert (await person.post("verify-email", {"token": token})).status_code == 204
            assert problem(await person.post("verify-email", {"token": token}), 400) == "token_invalid"

    async def test_a_reset_ends_sessions_and_locks(self, auth_target: Target) -> None:
        """A password reset ends every session and lock, and does not log in."""
        async with owner(auth_target) as person, browser(auth_target, like=person) as stranger:
            for _ in range(6):
                await stranger.log_in(password=WRONG)
            assert (await stranger.post("password/forgot", {"email": person.email})).status_code == 202
            body = {"token": await person.mailed_token(), "new_password": "another good horse"}
            answer = await stranger.post("password/reset", body)
            assert answer.status_code == 204
            assert "set-cookie" not in answer.headers
            assert problem(await person.refresh(), 401) == "session_revoked"
            assert (await stranger.log_in(password="another good horse")).status_code == 200
            assert problem(await stranger.post("password/reset", body), 400) == "token_invalid"

    async def test_a_mailed_token_expires(self, auth_target: Target) -> None:
        """A reset link expires after 30 minutes, a verification link after 24 hours."""
        async with owner(auth_target) as person, browser(auth_target) as late:
            assert (await person.post("password/forgot", {"email": person.email})).status_code == 202
            assert (await late.register()).is_success
            reset, verification = await person.mailed_token(), await late.mailed_token()
            await auth_target.pass_time(timedelta(minutes=30))
            body = {"token": reset, "new_password": "another good horse"}
            assert problem(await person.post("password/reset", body), 400) == "token_invalid"
            await auth_target.pass_time(timedelta(hours=24))
            assert problem(await late.post("verify-email", {"token": verification}), 400) == "token_invalid"

    async def test_an_unknown_field_is_refused_and_not_named(self, auth_target: Target) -> None:
        """The 422 response points at the object and does not contain the field's name, which may be a secret."""
        async with browser(auth_target) as person:
            secret = "hunter2-as-a-name"
            for value in (1, "\0", {"deeper": secret}):
                answer = await person.post("login", {"email": person.email, "password": "x", secret: value})
                assert problem(answer, 422) == "validation_failed"
                assert secret not in answer.text

    async def test_an_object_of_too_many_members_is_refused(self, auth_target: Target) -> None:
        """An object with more than 1,000 members gets 400 before it is validated."""
        async with browser(auth_target) as person:
            answer = await person.post("login", dict.fromkeys(map(str, range(1_001)), 0))
            assert problem(answer, 400) == "malformed_body"

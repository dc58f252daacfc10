"""Conformance cases for accepted passwords and their comparison."""

import pytest

from tequipy_auth.conformance.target import Target, browser, owner, problem


@pytest.mark.asyncio
class TestPasswords:
    """Passwords must be long and uncommon; their composition is free."""

    @pytest.mark.parametrize(
        ("password", "reason"),
        [
            ("elevenchars", "too_short"),
            ("", "too_short"),
            ("x" * 129, "too_long"),
            ("password1234", "common"),
            ("1q2w3e4r5t6y", "common"),
        ],
    )
    async def test_a_weak_password_is_refused_with_reasons(
        self, auth_target: Target, password: str, reason: str
    ) -> None:
        """A weak password gets 422 `weak_password`, and the response does not contain it."""
        async with browser(auth_target) as person:
            person.password = password
            answer = await person.register()
            assert problem(answer, 422) == "weak_password"
            assert reason in answer.json()["reasons"]
            assert not password or password not in answer.text

    async def test_the_address_is_refused_as_password(self, auth_target: Target) -> None:
        """The address and its local part are rejected as passwords, in any case."""
        async with browser(auth_target) as person:
            for password in (person.email.upper(), person.email.partition("@")[0]):
                person.password = password
                answer = await person.register()
                assert problem(answer, 422) == "weak_password"
                assert "matches_email" in answer.json()["reasons"]

    async def test_a_breached_password_is_refused(self, auth_target: Target) -> None:
        """A password that is known from data breaches is rejected by registration, reset and change."""
        breached = auth_target.breached_password
        if breached is None:
            pytest.skip("this app looks up no breached passwords: `breached_password` is None")
        async with browser(auth_target) as stranger, owner(auth_target) as person:
            stranger.password = breached
            await person.post("password/forgot", {"email": person.email})
            reset = {"token": await person.mailed_token(), "new_password": breached}
            change = {"current_password": person.password, "new_password": breached}
            bearer = {"Authorization": f"Bearer {person.access_token}"}
            for answer in (
                await stranger.register(),
                await person.post("password/reset", reset),
                await person.post("password/change", change, headers=bearer),
            ):
                assert problem(answer, 422) == "weak_password"
                assert answer.json()["reasons"] == ["breached"]
                assert breached not in answer.text
            assert (await person.log_in()).status_code == 200
            reset["new_password"] = f"{breached}, but longer"
            assert (await person.post("password/reset", reset)).status_code == 204

    @pytest.mark.parametrize(
        "password",
        [
            "twelve chars",
            "aaaaaaaaaaaz",
            "1209348756120",
            "пароль из слов",
            "🙂" * 12,
            "x" * 127 + "y",
            "tab\tand more words",
        ],
        ids=ascii,
    )
    async def test_any_composition_is_accepted(self, auth_target: Target, password: str) -> None:
        """Passwords may contain spaces and any script, up to 128 characters, and work at login."""
        async with browser(auth_target) as person:
            person.password = password
            assert (await person.register()).is_success
            assert (await person.verify()).status_code == 204
            assert (await person.log_in()).status_code == 200

    async def test_long_passwords_are_compared_in_full(self, auth_target: Target) -> None:
        """Passwords are not truncated at 72 bytes, and case matters."""
        async with browser(auth_target) as person:
            person.password = "x" * 100 + "-the-end"
            assert (await person.register()).is_success
            assert (await person.verify()).status_code == 204
            for wrong in ("x" * 100 + "-the-bend", "x" * 72, person.password.upper()):
                assert problem(await person.log_in(password=wrong), 401) == "invalid_credentials"
            assert (await person.log_in()).status_code == 200

    async def test_passwords_are_normalised(self, auth_target: Target) -> None:
        """Composed and decomposed characters are the same password (NFKC)."""
        async with browser(auth_target) as person:
            person.password = "\u212bngström and more"
            assert (await person.register()).is_success
            assert (await person.verify()).status_code == 204
            assert (await person.log_in(password="A\u030angstro\u0308m and more")).status_code == 200

    @pytest.mark.parametrize("raw", ['"\\u0000 nul and more words"', '"\\ud800 surrogate and words"'])
    async def test_nul_and_surrogates_are_refused(self, auth_target: Target, raw: str) -> None:
        """NUL and lone surrogates get 422, never a 5xx status."""
        async with browser(auth_target) as person:
            body = f'{{"email": "{person.email}", "password": {raw}}}'
            headers = {"Content-Type": "application/json"}
            for route in ("register", "login"):
                answer = await person.client.post(f"{auth_target.prefix}/{route}", content=body, headers=headers)
                assert problem(answer, 422) == "validation_failed"

    async def test_a_change_requires_the_current_password(self, auth_target: Target) -> None:
        """A password change requires the current password, ends all other sessions and keeps this one."""
        async with owner(auth_target) as person, browser(auth_target, like=person) as phone:
            assert (await phone.log_in()).status_code == 200
            bearer = {"Authorization": f"Bearer {person.access_token}"}
            body = {"current_password": "not the password", "new_password": "another horse entirely"}
            assert problem(await person.post("password/change", body, headers=bearer), 401) == "invalid_credentials"
            body["current_password"] = person.password
            assert (await person.post("password/change", body, headers=bearer)).status_code == 204
            assert (await person.refresh()).status_code == 200
            assert problem(await phone.refresh(), 401) == "session_revoked"
            assert problem(await phone.log_in(), 401) == "invalid_credentials"
            assert (await phone.log_in(password="another horse entirely")).status_code == 200

"""A search for attacks that lock the owner of an account out."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tequipy_auth import InvalidCredentials, LoginLocked
from tequipy_auth.testing import build_fake_auth
from tequipy_platform.testing import FrozenClock

from .accounts import EMAIL, PASSWORD
from .attempts import CAFE, HOME, at, log_in

Step = tuple[str, int]
"""What attackers do, and how often or for how many minutes."""


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["guess", "guess at one", "guess marked", "guess in parallel", "wait"]), st.integers(1, 60)
        ),
        max_size=12,
    )
)
def test_attackers_never_lock_a_mark_or_a_live_session(steps: list[Step]) -> None:
    """Whatever attackers do at any time, attempts with the owner's device mark and session are never refused."""
    asyncio.run(_attack(steps))


async def _attack(steps: list[Step]) -> None:
    clock = FrozenClock()
    auth = build_fake_auth(clock=clock)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.create_admin(email="eve@example.com", password=PASSWORD)
    pair = await log_in(auth)
    owner, session = replace(HOME, device_mark=pair.device_mark), await auth.access_tokens.verify(pair.access.value)
    foreign = (await log_in(auth, CAFE, email="eve@example.com")).device_mark
    forged = (pair.device_mark or "")[:-1] + "x"
    for kind, times in steps:
        clients = {
            "guess": [at(number) for number in range(times)],
            "guess at one": [HOME] * times,
            "guess marked": [replace(at(number), device_mark=[foreign, forged][number % 2]) for number in range(times)],
            "guess in parallel": [replace(HOME, user_agent=str(number)) for number in range(times)],
            "wait": [],
        }[kind]
        guesses = [auth.login.with_password(email=EMAIL, password="wrong", client=client) for client in clients]
        answers = await asyncio.gather(*guesses, return_exceptions=True)
        assert {type(answer) for answer in answers} <= {InvalidCredentials, LoginLocked}
        if kind == "guess in parallel":
            assert sum(isinstance(answer, InvalidCredentials) for answer in answers) <= 5
        if kind == "wait":
            clock.advance(timedelta(minutes=times))
        with pytest.raises(InvalidCredentials):  # four failures of the owner are within the limit
            await auth.login.with_password(email=EMAIL, password="mistyped", client=owner)
        with pytest.raises(InvalidCredentials):
            await auth.login.reauthenticate(session, password="mistyped", client=HOME)
        await log_in(auth, owner)
        pair = await auth.login.reauthenticate(session, password=PASSWORD, client=HOME)
        session = await auth.access_tokens.verify(pair.access.value)

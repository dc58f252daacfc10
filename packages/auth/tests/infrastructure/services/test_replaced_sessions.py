"""Reauthentication on PostgreSQL beside another tab that refreshes, and a thief with a copy of the refresh token."""

import asyncio
from collections import Counter

import pytest

from tequipy_auth import Auth, Client, TokenPair
from tequipy_platform import DomainError

from .processes import CLIENT, EMAIL, PASSWORD

THIEF = Client("192.0.2.66", "thief")


async def refresh(auth: Auth, token: str, client: Client) -> TokenPair | str:
    """Return the new tokens, or the error's code."""
    try:
        return await auth.sessions.refresh(token, client=client)
    except DomainError as error:
        return error.code


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "rounds", [pytest.param(20, id="short"), pytest.param(200, id="long", marks=pytest.mark.prove)]
)
async def test_a_tab_is_never_logged_out_and_a_thief_gains_no_session(auth: Auth, rounds: int) -> None:
    """A second tab and a thief refresh in the moment of a reauthentication, again and again.

    The browser keeps the cookie of the reauthentication: with it the tab goes on, whatever its own refresh was
    answered. Whatever the thief got leads to no further token.
    """
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    tabs: Counter[str] = Counter()
    thieves: Counter[str] = Counter()
    for _ in range(rounds):
        copied = str(pair.refresh)
        principal = await auth.access_tokens.verify(pair.access.value)
        new, tab, thief = await asyncio.gather(
            auth.login.reauthenticate(principal, password=PASSWORD, client=CLIENT),
            refresh(auth, copied, CLIENT),
            refresh(auth, copied, THIEF),
        )
        tabs["ok" if isinstance(tab, TokenPair) else tab] += 1
        for answer in (tab, thief):
            held = copied if isinstance(answer, str) else str(answer.refresh)
            thieves[str(await refresh(auth, held, THIEF))] += 1
        # The cookie in the jar, by which the tab goes on.
        continued = await refresh(auth, str(new.refresh), CLIENT)
        assert isinstance(continued, TokenPair), continued
        pair = continued
    print(f"\n{rounds} rounds: the tab's own refresh: {dict(tabs)}; with what the thief holds: {dict(thieves)}")
    assert set(tabs) <= {"ok", "refresh_superseded"}
    assert set(thieves) == {"refresh_superseded"}

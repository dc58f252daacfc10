"""The repository of refresh tokens: one contract suite for memory and PostgreSQL."""

import asyncio
from dataclasses import replace

import pytest

from tequipy_auth import Session

from .entities import HOUR, NOW, Work, make_refresh_token, new_id


async def test_a_token_is_claimed_once(work: Work, session: Session) -> None:
    """One of 10 concurrent claims succeeds, and its time is stored."""
    token = make_refresh_token(session)
    async with work() as unit:
        await unit.refresh_tokens.add(token)

    async def claim() -> bool:
        async with work() as unit:
            return await unit.refresh_tokens.claim(token.id, at=NOW + HOUR)

    assert sorted(await asyncio.gather(*(claim() for _ in range(10)))) == [False] * 9 + [True]
    async with work() as unit:
        assert await unit.refresh_tokens.get(token.id) == replace(token, used_at=NOW + HOUR)
        assert not await unit.refresh_tokens.claim(new_id(), at=NOW)


async def test_a_rolled_back_claim_leaves_the_token_unused(work: Work, session: Session) -> None:
    """An error after the claim leaves the token unused."""
    token = make_refresh_token(session)
    async with work() as unit:
        await unit.refresh_tokens.add(token)

    async def fail() -> None:
        async with work() as unit:
            assert await unit.refresh_tokens.claim(token.id, at=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with work() as unit:
        assert await unit.refresh_tokens.claim(token.id, at=NOW)


async def test_a_parent_has_one_child(work: Work, session: Session) -> None:
    """A second child of one parent raises an error."""
    parent = make_refresh_token(session)
    child = make_refresh_token(session, parent.id)
    async with work() as unit:
        await unit.refresh_tokens.add(parent)
        await unit.refresh_tokens.add(child)
    with pytest.raises(Exception, match="parent"):
        async with work() as unit:
            await unit.refresh_tokens.add(make_refresh_token(session, parent.id))
    async with work() as unit:
        assert await unit.refresh_tokens.child_of(parent.id) == child

"""The repository of one-time tokens: one contract suite for memory and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from tequipy_auth import AuthUnitOfWork, OneTimeToken, Purpose
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.testing import FrozenClock

from .entities import HOUR, NOW, VERIFY, Work, eventually_waiting, make_one_time_token, new_id


async def test_using_a_token_invalidates_its_siblings(work: Work) -> None:
    """Using a token returns its subject and invalidates its siblings; tokens of other subjects stay valid."""
    subject, other = new_id(), new_id()
    tokens = [make_one_time_token(subject), make_one_time_token(subject), make_one_time_token(other)]
    async with work() as unit:
        for token in tokens:
            await unit.one_time_tokens.add(token, keep=3)
    used = []
    for token in (tokens[0], tokens[0], tokens[1], tokens[2]):
        async with work() as unit:
            used.append(await unit.one_time_tokens.consume(token.id, VERIFY, b"hash", at=NOW))
    assert used == [subject, None, None, other]


async def test_an_invalid_token_changes_nothing(work: Work) -> None:
    """A wrong secret, another purpose and an expired token return None and change nothing."""
    token = make_one_time_token(new_id())
    async with work() as unit:
        await unit.one_time_tokens.add(token, keep=3)
    async with work() as unit:
        assert await unit.one_time_tokens.consume(token.id, VERIFY, b"guess", at=NOW) is None
        assert await unit.one_time_tokens.consume(token.id, Purpose.RESET_PASSWORD, b"hash", at=NOW) is None
        assert await unit.one_time_tokens.consume(token.id, VERIFY, b"hash", at=token.expires_at) is None
        just_in_time = token.expires_at - timedelta(microseconds=1)
        assert await unit.one_time_tokens.consume(token.id, VERIFY, b"hash", at=just_in_time) == token.subject_id


async def test_the_newest_tokens_are_kept(work: Work) -> None:
    """The newest tokens of a subject are kept, by creation time and not by order of insertion."""
    subject = new_id()
    by_age = [make_one_time_token(subject, age=number * HOUR / 2) for number in range(5)]
    async with work() as unit:
        for token in (by_age[4], by_age[0], by_age[2], by_age[1], by_age[3]):
            await unit.one_time_tokens.add(token, keep=3)
    async with work() as unit:
        assert await live_tokens(unit) == {token.id for token in by_age[:3]}


async def live_tokens(unit: AuthUnitOfWork) -> set[UUID]:
    if isinstance(unit, SqlAuthUnitOfWork):
        return set(await unit.session.scalars(text("select id from auth.one_time_tokens where used_at is null")))
    assert isinstance(unit, MemoryAuthUnitOfWork)
    return set(unit.one_time_tokens.rows)


async def test_one_of_several_concurrent_uses_succeeds(work: Work) -> None:
    """Of 10 concurrent uses of three sibling tokens one succeeds, without a deadlock."""
    subject = new_id()
    tokens = [make_one_time_token(subject) for _ in range(3)]
    async with work() as unit:
        for token in tokens:
            await unit.one_time_tokens.add(token, keep=3)

    async def consume(token: OneTimeToken) -> UUID | None:
        async with work() as unit:
            return await unit.one_time_tokens.consume(token.id, VERIFY, b"hash", at=NOW)

    used = await asyncio.gather(*(consume(tokens[number % 3]) for number in range(10)))
    assert [each for each in used if each is not None] == [subject]


async def test_a_concurrent_use_is_seen_after_the_wait(database: Database) -> None:
    """A transaction that waited for the row sees that the token is used."""
    token = make_one_time_token(new_id())

    def work() -> SqlAuthUnitOfWork:
        return SqlAuthUnitOfWork(database, FrozenClock(), new_id)

    async with work() as unit:
        await unit.one_time_tokens.add(token, keep=3)
    shown = (token.id, VERIFY, b"hash")
    async with work() as late:
        async with work() as first:
            assert await first.one_time_tokens.consume(*shown, at=NOW) == token.subject_id
            second = asyncio.create_task(late.one_time_tokens.consume(*shown, at=NOW))
            await eventually_waiting(database)
        assert await second is None


async def test_concurrently_created_tokens_do_not_exceed_the_limit(work: Work) -> None:
    """After any number of concurrent insertions three tokens are valid."""
    subject = new_id()
    tokens = [make_one_time_token(subject) for _ in range(10)]

    async def add(token: OneTimeToken) -> None:
        async with work() as unit:
            await unit.one_time_tokens.add(token, keep=3)

    await asyncio.gather(*map(add, tokens))
    async with work() as unit:
        assert len(await live_tokens(unit)) == 3


async def test_peeking_does_not_use_the_token(work: Work) -> None:
    """A token is still valid after `peek`, which returns None for invalid tokens."""
    subject = new_id()
    token = make_one_time_token(subject)
    shown = (token.id, VERIFY, token.secret_hash)
    async with work() as unit:
        await unit.one_time_tokens.add(token, keep=3)
        for _ in range(2):
            assert await unit.one_time_tokens.peek(*shown, at=NOW) == subject
        assert await unit.one_time_tokens.peek(*shown, at=token.expires_at) is None
        assert await unit.one_time_tokens.peek(token.id, Purpose.RESET_PASSWORD, token.secret_hash, at=NOW) is None
        assert await unit.one_time_tokens.peek(token.id, VERIFY, b"wrong", at=NOW) is None
        assert await unit.one_time_tokens.consume(*shown, at=NOW) == subject
        assert await unit.one_time_tokens.peek(*shown, at=NOW) is None


async def test_discarded_tokens_are_invalid(work: Work) -> None:
    """All tokens of a purpose and subject are deleted, no others."""
    subject = new_id()
    doomed, other_purpose, other_subject = (
        make_one_time_token(subject),
        replace(make_one_time_token(subject), purpose=Purpose.RESET_PASSWORD),
        make_one_time_token(new_id()),
    )
    async with work() as unit:
        for token in (doomed, other_purpose, other_subject):
            await unit.one_time_tokens.add(token, keep=3)
        await unit.one_time_tokens.discard(subject, VERIFY)
        left = [
            token
            for token in (doomed, other_purpose, other_subject)
            if await unit.one_time_tokens.peek(token.id, token.purpose, token.secret_hash, at=NOW)
        ]
    assert left == [other_purpose, other_subject]


async def test_a_token_is_known_until_it_is_purged(work: Work) -> None:
    """Valid, used and expired tokens are known for any purpose; unknown ids are not."""
    good, used = make_one_time_token(new_id()), make_one_time_token(new_id())
    async with work() as unit:
        for token in (good, used):
            await unit.one_time_tokens.add(token, keep=3)
        await unit.one_time_tokens.consume(used.id, used.purpose, used.secret_hash, at=NOW)
    async with work() as unit:
        known = [await unit.one_time_tokens.is_known(token_id) for token_id in (good.id, used.id, new_id())]
        assert known == [True, True, False]
        assert await unit.one_time_tokens.purge(before=NOW + HOUR, limit=3) == 2
        assert not await unit.one_time_tokens.is_known(used.id)


async def test_password_attempts_of_a_token_are_counted_and_released(work: Work) -> None:
    """After five attempts only `consume` accepts the token, because the last attempt may be correct."""
    token, other = make_one_time_token(new_id()), make_one_time_token(new_id())
    shown = (token.id, VERIFY, b"hash")
    async with work() as unit:
        await unit.one_time_tokens.add(token, keep=3)
        await unit.one_time_tokens.add(other, keep=3)
        await unit.one_time_tokens.release_try(token.id)
        assert await unit.one_time_tokens.reserve_try(token.id, VERIFY, b"another hash", at=NOW) is None
        assert await unit.one_time_tokens.reserve_try(*shown, at=NOW + HOUR) is None
        assert await unit.one_time_tokens.reserve_try(new_id(), VERIFY, b"hash", at=NOW) is None

    async def take() -> UUID | None:
        async with work() as unit:
            return await unit.one_time_tokens.reserve_try(*shown, at=NOW)

    taken = await asyncio.gather(*(take() for _ in range(12)))
    assert (taken.count(token.subject_id), taken.count(None)) == (5, 7)
    async with work() as unit:
        assert await unit.one_time_tokens.peek(*shown, at=NOW) is None
        await unit.one_time_tokens.release_try(token.id)
        assert await unit.one_time_tokens.peek(*shown, at=NOW) == token.subject_id
        assert await unit.one_time_tokens.reserve_try(*shown, at=NOW) == token.subject_id
        assert await unit.one_time_tokens.consume(*shown, at=NOW) == token.subject_id
        assert await unit.one_time_tokens.reserve_try(*shown, at=NOW) is None
        assert await unit.one_time_tokens.peek(other.id, VERIFY, b"hash", at=NOW) == other.subject_id

"""Counters of failed attempts: one contract suite for memory and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth.domain.lockout import COUNTER_TTL, Counter, Key, Scope

from .entities import NOW, Work

LATER = NOW + timedelta(seconds=30)
ADA = [Key(Scope.PAIR, "ada-home", "ada"), Key(Scope.ACCOUNT, "ada", "ada"), Key(Scope.CLIENT, "home")]
BOB = [Key(Scope.PAIR, "bob-home", "bob"), Key(Scope.ACCOUNT, "bob", "bob"), Key(Scope.CLIENT, "home")]


async def count(work: Work, keys: list[Key], *, failures: int = 1) -> None:
    for _ in range(failures):
        async with work() as unit:
            counters = await unit.attempts.lock(keys)
            await asyncio.sleep(0)
            await unit.attempts.save({key: each.with_failure(key.scope, NOW) for key, each in counters.items()})


async def counted(work: Work, keys: list[Key]) -> list[int]:
    async with work() as unit:
        counters = await unit.attempts.lock(keys)
    return [len(counters[key].failed_at) for key in keys]


async def test_stored_counters_are_returned(work: Work) -> None:
    """New keys have empty counters; a stored counter is returned unchanged."""
    minute = timedelta(minutes=1)
    full = Counter((NOW - minute, NOW), (NOW,), 3, NOW + 2 * minute, NOW - minute, NOW + 60 * minute)
    async with work() as unit:
        assert await unit.attempts.lock(ADA) == dict.fromkeys(ADA, Counter())
        await unit.attempts.save({ADA[0]: full})
    async with work() as unit:
        assert await unit.attempts.lock(ADA) == {ADA[0]: full, ADA[1]: Counter(), ADA[2]: Counter()}
        assert await unit.attempts.lock([]) == {}
        await unit.attempts.save({})


async def test_concurrent_failures_are_all_counted(work: Work) -> None:
    """30 concurrent transactions with overlapping keys in any order neither lose a failure nor deadlock."""
    async with asyncio.timeout(60):
        await asyncio.gather(*(count(work, keys) for keys in [ADA, BOB, ADA[::-1], BOB[::-1], ADA] * 6))
    assert await counted(work, ADA) == [18, 18, 30]
    assert await counted(work, BOB[:2]) == [12, 12]


async def test_a_rollback_discards_the_count(work: Work) -> None:
    """A counter changes only when its unit of work commits."""
    await count(work, ADA)

    async def fail() -> None:
        async with work() as unit:
            await unit.attempts.lock(ADA)
            await unit.attempts.save(dict.fromkeys(ADA, Counter()))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await counted(work, ADA) == [1, 1, 1]


async def test_releasing_removes_one_reservation_and_deletes_keys(work: Work) -> None:
    """A release removes the first reservation of that time, deletes the given keys, and leaves everything else."""
    await count(work, BOB)
    full = Counter((NOW,), (LATER, NOW, LATER, NOW), 1, LATER, NOW, LATER)
    async with work() as unit:
        await unit.attempts.lock(ADA)
        await unit.attempts.save(dict.fromkeys(ADA, full))
    async with work() as unit:
        await unit.attempts.release([*ADA, Key(Scope.PAIR, "absent", "ada")], NOW, delete=ADA[:1])
    async with work() as unit:
        await unit.attempts.release(ADA, NOW - timedelta(hours=1))
        await unit.attempts.release([], NOW)
        rest = replace(full, reserved_at=(LATER, LATER, NOW))
        assert await unit.attempts.lock(ADA) == {ADA[0]: Counter(), ADA[1]: rest, ADA[2]: rest}
    assert await counted(work, BOB) == [1, 1, 1]


async def test_concurrent_releases_lose_nothing(work: Work) -> None:
    """40 concurrent transactions that fail or release overlapping keys neither lose a change nor deadlock."""
    async with work() as unit:
        await unit.attempts.lock([*ADA, *BOB])
        await unit.attempts.save({key: Counter(reserved_at=(NOW,) * 20) for key in [*ADA, *BOB]})

    async def release(keys: list[Key]) -> None:
        async with work() as unit:
            await unit.attempts.release(keys, NOW)

    async with asyncio.timeout(60):
        await asyncio.gather(*(each for keys in [ADA, BOB[::-1]] * 10 for each in (release(keys), count(work, keys))))
    async with work() as unit:
        counters = await unit.attempts.lock([*ADA, *BOB])
    assert [len(counters[key].reserved_at) for key in [*ADA, *BOB[:2]]] == [10, 10, 0, 10, 10]
    assert [len(counters[key].failed_at) for key in [*ADA, *BOB[:2]]] == [10, 10, 20, 10, 10]


async def test_all_counters_of_an_account_but_one_are_deleted(work: Work) -> None:
    """Counters of the account are deleted for all clients; the one to keep, client addresses, other accounts stay."""
    elsewhere = Key(Scope.DEVICE, "ada-phone", "ada")
    await count(work, [*ADA, elsewhere])
    await count(work, BOB)
    async with work() as unit:
        await unit.attempts.delete_for_account("ada", keep=ADA[0])
    assert await counted(work, [*ADA, elsewhere]) == [1, 0, 2, 0]
    assert await counted(work, BOB) == [1, 1, 2]


async def test_deleting_an_account_never_deadlocks_with_attempts(work: Work) -> None:
    """Deleting an account's counters but one, 40 times beside concurrent attempts, is never aborted."""

    async def forget(kept: Key) -> None:
        async with work() as unit:
            await unit.attempts.delete_for_account("ada", keep=kept)
            await unit.attempts.save({kept: Counter(trusted_until=NOW)})

    last = Key(Scope.ACCOUNT, "ada-everywhere", "ada")
    async with asyncio.timeout(60):
        for number in range(40):
            first = Key(Scope.PAIR, f"ada-at-{number}", "ada")
            await count(work, [last])
            await asyncio.gather(forget(first), count(work, [first, last]))


async def test_expired_counters_are_purged_in_batches(work: Work) -> None:
    """Expired and empty counters are deleted, no more than the limit each time."""
    await count(work, ADA)
    async with work() as unit:
        await unit.attempts.lock([Key(Scope.CLIENT, "idle")])
    died = []
    for moment in (
        NOW,
        NOW + COUNTER_TTL - timedelta(microseconds=1),
        NOW + COUNTER_TTL,
        NOW + COUNTER_TTL,
        NOW + COUNTER_TTL,
    ):
        async with work() as unit:
            died.append(await unit.attempts.purge(before=moment, limit=2))
    # In memory an empty counter is not stored.
    assert died in ([1, 0, 2, 1, 0], [0, 0, 2, 1, 0])

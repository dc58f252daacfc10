"""The counters of failed attempts: one suite over memory and PostgreSQL alike."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from tequipy_auth import AuthUnitOfWork
from tequipy_auth.domain.lockout import COUNTER_TTL, Counter, Key, Scope
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock
from tequipy_platform.wiring import Database

NOW = EPOCH
ADA = [Key(Scope.PAIR, "ada-home", "ada"), Key(Scope.ACCOUNT, "ada", "ada"), Key(Scope.CLIENT, "home")]
BOB = [Key(Scope.PAIR, "bob-home", "bob"), Key(Scope.ACCOUNT, "bob", "bob"), Key(Scope.CLIENT, "home")]
Work = Callable[[], AuthUnitOfWork]


@pytest.fixture(params=["memory", "postgresql"])
def work(request: pytest.FixtureRequest) -> Work:
    """Return the maker of units of work over one store."""
    if request.param == "memory":
        held = MemoryAuthUnitOfWork(FrozenClock())
        return lambda: held
    database: Database = request.getfixturevalue("database")
    return lambda: SqlAuthUnitOfWork(database, FrozenClock(), CountingIds())


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


async def test_what_is_kept_is_held_again(work: Work) -> None:
    """New keys have empty counters; a kept counter comes back equal, lock and all."""
    minute = timedelta(minutes=1)
    full = Counter((NOW - minute, NOW), (NOW,), 3, NOW + 2 * minute, NOW - minute, NOW + 60 * minute)
    async with work() as unit:
        assert await unit.attempts.lock(ADA) == dict.fromkeys(ADA, Counter())
        await unit.attempts.save({ADA[0]: full})
    async with work() as unit:
        assert await unit.attempts.lock(ADA) == {ADA[0]: full, ADA[1]: Counter(), ADA[2]: Counter()}
        assert await unit.attempts.lock([]) == {}
        await unit.attempts.save({})


async def test_no_failure_is_lost_when_many_count_at_once(work: Work) -> None:
    """30 who count under overlapping keys, named in any order, wait for each other and for nothing else."""
    async with asyncio.timeout(60):
        await asyncio.gather(*(count(work, keys) for keys in [ADA, BOB, ADA[::-1], BOB[::-1], ADA] * 6))
    assert await counted(work, ADA) == [18, 18, 30]
    assert await counted(work, BOB[:2]) == [12, 12]


async def test_what_is_rolled_back_was_never_counted(work: Work) -> None:
    """A counter shares the fate of its unit of work."""
    await count(work, ADA)

    async def fail() -> None:
        async with work() as unit:
            await unit.attempts.lock(ADA)
            await unit.attempts.save(dict.fromkeys(ADA, Counter()))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await counted(work, ADA) == [1, 1, 1]


async def test_some_keys_are_forgotten(work: Work) -> None:
    """Dropping a key leaves the others."""
    await count(work, ADA)
    async with work() as unit:
        await unit.attempts.delete(ADA[:1])
        await unit.attempts.delete([])
    assert await counted(work, ADA) == [0, 1, 1]


async def test_an_account_is_forgotten_as_a_whole(work: Work) -> None:
    """Every counter of the account goes, from whichever client; client addresses and other accounts stay."""
    elsewhere = Key(Scope.DEVICE, "ada-phone", "ada")
    await count(work, [*ADA, elsewhere])
    await count(work, BOB)
    async with work() as unit:
        await unit.attempts.delete_for_account("ada")
    assert await counted(work, [*ADA, elsewhere]) == [0, 0, 2, 0]
    assert await counted(work, BOB) == [1, 1, 2]


async def test_forgetting_an_account_never_deadlocks_with_attempts(work: Work) -> None:
    """Forgetting an account and keeping one of its keys waits for concurrent attempts, 40 times: none is aborted."""

    async def forget(kept: Key) -> None:
        async with work() as unit:
            await unit.attempts.delete_for_account("ada", also_lock=[kept])
            await unit.attempts.lock([kept])
            await unit.attempts.save({kept: Counter(trusted_until=NOW)})

    last = Key(Scope.ACCOUNT, "ada-everywhere", "ada")
    async with asyncio.timeout(60):
        for number in range(40):
            first = Key(Scope.PAIR, f"ada-at-{number}", "ada")
            await count(work, [last])
            await asyncio.gather(forget(first), count(work, [first, last]))


async def test_the_dead_are_purged_bit_by_bit(work: Work) -> None:
    """Counters go when they have died, and those that hold nothing go at once; no more than the limit each time."""
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
    # In memory a counter that holds nothing is not there at all.
    assert died in ([1, 0, 2, 1, 0], [0, 0, 2, 1, 0])

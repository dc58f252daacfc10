"""Locks after failed logins: which attempts count, how long locks last, and whom they affect."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import Auth, Client, InvalidCredentials, LoginLocked, TokenPair
from tequipy_auth.domain.lockout import Lockout, Scope
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Unavailable
from tequipy_platform.testing import FrozenClock

from .accounts import EMAIL, MOMENT, PASSWORD, CountingHasher
from .attempts import CAFE, HOME, LOCK, at, fail, fail_again, is_locked, log_in

pytestmark = pytest.mark.usefixtures("account")


async def test_the_attempt_after_the_fifth_failure_is_locked(auth: Auth, hasher: CountingHasher) -> None:
    """Five wrong passwords are refused as wrong; then even the correct one is not checked for 30 s."""
    await fail(auth, 5)
    assert await is_locked(auth) == 30
    assert hasher.looked_at == 5


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
async def test_a_lock_does_not_reveal_whether_an_account_exists(auth: Auth, email: str) -> None:
    """An address without an account is locked like one with an account, in any spelling."""
    await fail(auth, 5, email=email)
    assert await is_locked(auth, email=f" {email.upper()} ") == 30


async def test_attempts_while_locked_neither_count_nor_extend(auth: Auth, clock: FrozenClock) -> None:
    """100 attempts during a lock do not extend it, and the next failure causes the next lock."""
    await fail(auth, 5)
    clock.advance(LOCK - MOMENT)
    for _ in range(100):
        assert await is_locked(auth) == 1
    clock.advance(MOMENT)
    await fail(auth)
    assert await is_locked(auth) == 60


async def test_each_failure_after_a_lock_causes_a_longer_lock(auth: Auth, clock: FrozenClock) -> None:
    """The locks last 30 s, then 1, 2, 4, 8 and at most 15 min."""
    await fail(auth, 4)
    lengths = []
    for _ in range(7):
        await fail(auth)
        lengths.append(await is_locked(auth))
        clock.advance(timedelta(seconds=lengths[-1]))
    assert lengths == [30, 60, 120, 240, 480, 900, 900]


async def test_a_success_clears_the_pair(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A success clears the counter of the pair; the counters of the account and the client address stay."""
    await fail(auth, 4)
    await log_in(auth)
    await fail(auth, 5)
    await is_locked(auth)
    scopes = {key.scope.label: len(counter.failed_at) for key, counter in work.attempts.rows.items()}
    assert scopes == {"pair": 5, "account": 9, "client": 9}


async def test_a_success_is_no_failure_of_account_or_client_address(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Successful logins never change the counters of the account and the client address."""
    for _ in range(60):
        await log_in(auth)
    assert all(not counter.failed_at for counter in work.attempts.rows.values())


async def test_twenty_failures_from_anywhere_lock_the_account(auth: Auth) -> None:
    """20 failures from any addresses lock the account for all of them, but no other account."""
    for number in range(20):
        await fail(auth, client=at(number))
    assert await is_locked(auth, at(99)) == 30
    await fail(auth, client=at(99), email="somebody-else@example.com")


async def test_fifty_failures_from_one_address_lock_it(auth: Auth) -> None:
    """50 failures at any accounts lock the client address, including its neighbours in the /64, for all accounts."""
    subscriber = "2001:db8:1:2"
    for number in range(50):
        await fail(auth, client=Client(f"{subscriber}::{number}"), email=f"user{number}@example.com")
    assert await is_locked(auth, Client(f"{subscriber}:ffff::1")) == 30
    await log_in(auth, Client("2001:db8:1:3::1"))


async def test_counters_expire_12_hours_after_the_last_failure(auth: Auth, clock: FrozenClock) -> None:
    """12 hours after the last failure locks start short again."""
    await fail(auth, 5)
    clock.advance(timedelta(hours=12))
    await fail(auth, 5)
    assert await is_locked(auth) == 30


async def test_at_most_five_parallel_guesses_are_checked(auth: Auth, hasher: CountingHasher) -> None:
    """Of 50 parallel guesses five are checked, because attempts are reserved before hashing."""
    guesses = (auth.login.with_password(email=EMAIL, password="wrong", client=HOME) for _ in range(50))
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    kinds = [type(answer) for answer in answers]
    assert (kinds.count(InvalidCredentials), kinds.count(LoginLocked)) == (5, 45)
    assert hasher.looked_at == 5


async def test_a_failure_that_cannot_be_stored_keeps_its_reservation(
    auth: Auth, hasher: CountingHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While failures cannot be stored, five wrong passwords are checked and no more: a 503 allows no further guess."""

    async def fail_to_store(*_: object) -> None:
        raise Unavailable

    monkeypatch.setattr(Lockout, "fail", fail_to_store)
    for number in range(20):
        with pytest.raises(Unavailable if number < 5 else LoginLocked):
            await auth.login.with_password(email=EMAIL, password="wrong", client=HOME)
    assert hasher.looked_at == 5


async def test_an_attacker_cannot_lock_the_owner_out(auth: Auth) -> None:
    """A client with a device mark has its own limit of five failures, whatever others do."""
    owner = replace(HOME, device_mark=(await log_in(auth)).device_mark)
    for number in range(20):
        await fail(auth, client=at(number))
    assert await is_locked(auth, HOME) == 30, "the same address without the mark"
    await log_in(auth, owner)
    await fail(auth, 5, client=owner)
    assert await is_locked(auth, owner) == 30
    assert await is_locked(auth, replace(CAFE, device_mark=owner.device_mark)) == 30, "the device, wherever it is"


async def test_a_mark_of_another_account_has_no_effect(auth: Auth) -> None:
    """A device mark only has an effect on its own account."""
    await auth.registration.create_admin(email="bob@example.com", password=PASSWORD)
    foreign = replace(HOME, device_mark=(await log_in(auth, email="bob@example.com")).device_mark)
    await fail(auth, 5)
    assert await is_locked(auth, foreign) == 30


async def test_guesses_in_sessions_and_under_marks_count_towards_the_account(
    auth: Auth, clock: FrozenClock, work: MemoryAuthUnitOfWork
) -> None:
    """Failures in sessions and with device marks lock the account for others, but not for themselves."""
    sessions = [await auth.access_tokens.verify((await log_in(auth)).access.value) for _ in range(3)]
    devices = [replace(CAFE, device_mark=(await log_in(auth)).device_mark) for _ in range(3)]
    for principal in sessions[:2]:
        await fail_again(auth, principal, 5)
    for device in devices[:2]:
        await fail(auth, 5, device)
    assert await is_locked(auth, at(1)) == 30
    await log_in(auth, devices[2])
    await auth.login.reauthenticate(sessions[2], password=PASSWORD, client=HOME)
    account = next(counter for key, counter in work.attempts.rows.items() if key.scope is Scope.ACCOUNT)
    await fail(auth, 4, devices[2])
    assert account == next(counter for key, counter in work.attempts.rows.items() if key.scope is Scope.ACCOUNT)
    clock.advance(LOCK)
    await fail(auth, 1, devices[2])
    assert await is_locked(auth, at(1)) == 60, "once the lock has ended, a failure is the next step"


async def test_marked_clients_behind_a_locked_address_can_log_in(auth: Auth) -> None:
    """50 failures lock a client address for all clients behind it except those with a device mark."""
    marked = replace(HOME, device_mark=(await log_in(auth, HOME)).device_mark)
    for number in range(50):
        await fail(auth, client=HOME, email=f"user{number}@example.com")
    assert await is_locked(auth, HOME) == 30
    await log_in(auth, marked)


async def test_account_locks_start_short_again_under_attack(auth: Auth, clock: FrozenClock) -> None:
    """An attacker who fails once after each lock gets longer account locks for an hour only."""
    for number in range(20):
        await fail(auth, client=at(number))
    started, number = clock.now(), 20
    while clock.now() < started + timedelta(hours=1):
        clock.advance(timedelta(seconds=await is_locked(auth, CAFE)))
        if clock.now() < started + timedelta(hours=1):
            await fail(auth, client=at(number))
            number += 1
    await fail(auth, client=at(number))
    await log_in(auth, CAFE)


async def test_parallel_logins_of_the_owner_cause_no_lock(auth: Auth) -> None:
    """Parallel logins beyond five get `Retry-After` 1 s and leave no trace."""
    answers = await asyncio.gather(*(log_in(auth) for _ in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, LoginLocked)]
    assert {answer.retry_after for answer in refused} == {1}
    assert len([answer for answer in answers if isinstance(answer, TokenPair)]) == 5
    await log_in(auth)


async def test_a_process_that_dies_locks_nobody_out(auth: Auth, hasher: CountingHasher, clock: FrozenClock) -> None:
    """Abandoned attempts expire after a minute and count for nothing."""
    hasher.dies = True
    for _ in range(5):
        with pytest.raises(asyncio.CancelledError):
            await log_in(auth)
    hasher.dies = False
    assert await is_locked(auth) == 1
    clock.advance(timedelta(minutes=1))
    await fail(auth, 4)
    await log_in(auth)

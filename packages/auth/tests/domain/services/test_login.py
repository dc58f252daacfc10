"""Login with a password: what is checked, answered, stored and audited."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from tequipy_auth import (
    AuditAction,
    Auth,
    Client,
    HashingClient,
    InvalidCredentials,
    KeyUnusable,
    Outcome,
    PasswordHash,
    UserStatus,
)
from tequipy_auth.domain.services import login
from tequipy_auth.domain.services.login import ADMITTED
from tequipy_auth.testing import (
    FakeAccessTokens,
    FakePasswordHasher,
    MemoryAuthUnitOfWork,
    RecordingOperations,
    build_fake_auth,
)
from tequipy_platform import Unavailable

from .accounts import CLIENT, EMAIL, PASSWORD, CountingHasher
from .attempts import CAFE, HOME, fail, is_locked, log_in

pytestmark = pytest.mark.usefixtures("account")


async def test_login_is_unavailable_without_a_signing_key(
    auth: Auth, work: MemoryAuthUnitOfWork, hasher: CountingHasher
) -> None:
    """A login without a usable signing key raises `Unavailable` and creates no hash, attempt or session."""
    tokens = auth.access_tokens
    assert isinstance(tokens, FakeAccessTokens)
    tokens.error = KeyUnusable("it cannot be read")
    for _ in range(6):
        with pytest.raises(Unavailable):
            await log_in(auth)
    assert (hasher.looked_at, work.sessions.rows) == (0, {})
    tokens.error = None
    await log_in(auth)


async def test_a_full_queue_is_no_failure(
    auth: Auth, hasher: CountingHasher, work: MemoryAuthUnitOfWork, operations: RecordingOperations
) -> None:
    """An attempt that was refused with 503 is not counted."""
    hasher.full = True
    for _ in range(10):
        with pytest.raises(Unavailable):
            await log_in(auth)
    hasher.full = False
    await log_in(auth)
    assert operations.counts["login", "unavailable"] == 10
    assert AuditAction.LOGIN_FAILED not in {event.action for event in work.audit.events}


async def test_a_right_password_is_no_failure_when_the_rest_fails(
    auth: Auth, work: MemoryAuthUnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations that end in 503 after the password check leave no reservation."""

    async def fail_to_keep(*_: object, **__: object) -> None:
        raise Unavailable

    principal, other = [await auth.access_tokens.verify((await log_in(auth)).access.value) for _ in range(2)]
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: log_in(auth),
        lambda: auth.login.reauthenticate(principal, password=PASSWORD, client=HOME),
        lambda: auth.passwords.change(
            other, current_password=PASSWORD, new_password="an even better password", client=HOME
        ),
    ]
    for attempt in attempts:
        with monkeypatch.context() as patch:
            patch.setattr(work.users, "lock", fail_to_keep)
            for _ in range(10):
                with pytest.raises(Unavailable):
                    await attempt()
        await attempt()


async def test_an_outdated_hash_is_renewed_at_login(work: MemoryAuthUnitOfWork) -> None:
    """The first login after a change of scheme, cost or pepper stores a new hash; a wrong password does not."""
    (user,) = work.users.rows.values()

    class Older(FakePasswordHasher):
        def is_outdated(self, stored: PasswordHash) -> bool:
            return stored == user.password

        async def hash(self, password: str, client: HashingClient) -> PasswordHash:
            return replace(await super().hash(password, client), cost=1)

        async def verify(
            self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
        ) -> bool:
            assert highest_cost in {0, 1}
            return await super().verify(password, replace(stored, cost=1) if stored else None, client)

    newer = build_fake_auth(work, hasher=Older())
    await fail(newer)
    assert work.users.rows[user.id] == user
    for _ in range(2):
        await log_in(newer)
        assert work.users.rows[user.id].password.cost == 1


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com", "older@example.com"])
async def test_every_check_gets_the_highest_stored_cost(
    auth: Auth, work: MemoryAuthUnitOfWork, hasher: CountingHasher, email: str
) -> None:
    """Every check gets the highest stored cost, also for unknown accounts; costs above the maximum do not count."""
    for name, cost in (("older", 14), ("damaged", 16)):
        await auth.registration.create_admin(email=f"{name}@example.com", password=PASSWORD)
        user = await work.users.by_email(f"{name}@example.com")
        assert user is not None
        await work.users.set_password(user.id, replace(user.password, cost=cost))
    await fail(auth, email=email)
    assert hasher.highest_costs == [14]


async def test_a_password_changed_while_it_was_checked_is_wrong(
    auth: Auth, work: MemoryAuthUnitOfWork, hasher: CountingHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login with a password that is changed meanwhile starts no session and counts as a failure."""
    (user,) = work.users.rows.values()

    async def verify_slowly(
        password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int
    ) -> bool:
        assert highest_cost == 0
        await work.users.set_password(user.id, await hasher.hash("another good password", client))
        return await FakePasswordHasher.verify(hasher, password, stored, client)

    monkeypatch.setattr(hasher, "verify", verify_slowly)
    with pytest.raises(InvalidCredentials):
        await log_in(auth)
    assert not work.sessions.rows
    assert (work.audit.events[-1].action, work.audit.events[-1].subject_id) == (AuditAction.LOGIN_FAILED, user.id)
    assert {(len(each.failed_at), each.reserved_at) for each in work.attempts.rows.values()} == {(1, ())}


async def test_an_account_disabled_while_its_password_was_checked_is_refused(
    auth: Auth, work: MemoryAuthUnitOfWork, hasher: CountingHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal after the check is a failed login like any other: counted, audited and without a session."""
    (user,) = work.users.rows.values()

    async def verify_slowly(*arguments: Any, **more: Any) -> bool:
        await work.users.set_status(user.id, UserStatus.DISABLED)
        return await FakePasswordHasher.verify(hasher, *arguments, **more)

    monkeypatch.setattr(hasher, "verify", verify_slowly)
    with pytest.raises(InvalidCredentials):
        await log_in(auth)
    assert not work.sessions.rows
    assert (work.audit.events[-1].action, work.audit.events[-1].subject_id) == (AuditAction.LOGIN_FAILED, user.id)
    assert {(len(each.failed_at), each.reserved_at) for each in work.attempts.rows.values()} == {(1, ())}


async def test_the_access_token_is_signed_before_the_commit(
    auth: Auth, work: MemoryAuthUnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login whose token cannot be signed leaves no session, and a revocation after the commit outlives the token."""

    async def fail_to_sign(*_: object) -> None:
        raise KeyUnusable("it cannot be read")

    monkeypatch.setattr(auth.session_issuer, "access_token", fail_to_sign)
    with pytest.raises(Unavailable):
        await log_in(auth)
    assert not work.sessions.rows
    assert {each.reserved_at for each in work.attempts.rows.values()} == {()}


async def test_every_attempt_is_audited(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Successes, failures and locks are audited for known and unknown addresses, which are stored as pseudonyms."""
    pair = await log_in(auth)
    await fail(auth, 5, CAFE)
    await is_locked(auth, CAFE)
    await fail(auth, email="typed-password-here@example.com")
    (user,) = work.users.rows.values()
    session_id = (await auth.access_tokens.verify(pair.access.value)).session_id
    success, *failures, locked, unknown = [event for event in work.audit.events if event.client.ip]
    assert (success.action, success.outcome, success.actor_id, success.subject_id, success.session_id) == (
        AuditAction.LOGIN_OK,
        Outcome.SUCCESS,
        user.id,
        user.id,
        session_id,
    )
    assert {(each.action, each.outcome, each.reason, each.subject_id, each.client) for each in failures} == {
        (AuditAction.LOGIN_FAILED, Outcome.FAILURE, "invalid_credentials", user.id, CAFE)
    }
    assert (len(failures), locked.action, locked.reason) == (5, AuditAction.LOGIN_LOCKED, "login_locked")
    assert locked.metadata == {**failures[0].metadata, "scope": "pair"}
    assert (unknown.subject_id, unknown.actor_id) == (None, None)
    assert unknown.metadata["address"] != locked.metadata["address"]
    assert "typed" not in repr(work.audit.rows)


async def test_every_attempt_is_counted(auth: Auth, operations: RecordingOperations) -> None:
    """The metric distinguishes successes, failures and locks."""
    await log_in(auth)
    await fail(auth, 5)
    await is_locked(auth)
    counts = {status: count for (operation, status), count in operations.counts.items() if operation == "login"}
    assert counts == {"ok": 1, "invalid_credentials": 5, "login_locked": 1}


async def test_a_login_finds_the_account_by_any_spelling(auth: Auth) -> None:
    """Case and outer spaces of the address and the Unicode form of the password do not matter."""
    await auth.registration.create_admin(email="b@example.com", password="\u212bngström-units")
    await auth.login.with_password(email=" B@EXAMPLE.com ", password="A\u030angstro\u0308m-units", client=CLIENT)


@pytest.mark.parametrize(("email", "password"), [(EMAIL, "wrong password"), ("nobody@example.com", PASSWORD)])
async def test_a_failed_login_does_not_reveal_the_reason(
    auth: Auth, work: MemoryAuthUnitOfWork, email: str, password: str
) -> None:
    """An unknown address and a wrong password get the same answer and start no session."""
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=email, password=password, client=CLIENT)
    assert not work.sessions.rows


async def test_logins_that_hash_hold_no_place(auth: Auth, hasher: CountingHasher) -> None:
    """More logins than may use the database at the same time hash at the same time."""
    everybody = asyncio.Barrier(ADMITTED + 2)
    verify = hasher.verify

    async def together(*arguments: Any, **options: Any) -> bool:
        await everybody.wait()
        return await verify(*arguments, **options)

    hasher.verify = together  # type: ignore[method-assign]  # -- of this test's hasher only
    clients = [Client(f"192.0.2.{number}") for number in range(ADMITTED + 2)]
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(auth.login.with_password(email=EMAIL, password=PASSWORD, client=client) for client in clients)
        )


async def test_a_login_waits_for_its_turn(
    auth: Auth, work: MemoryAuthUnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that waits too long for others is unavailable and is not counted; a later one succeeds."""
    monkeypatch.setattr(login, "ADMISSION_SECONDS", 0.01)
    async with AsyncExitStack() as others:
        for _ in range(ADMITTED):
            await others.enter_async_context(auth.login._admission())
        with pytest.raises(Unavailable):
            await log_in(auth)
        assert work.attempts.rows == {}
    await log_in(auth)


async def test_logins_take_turns_in_any_event_loop(auth: Auth) -> None:
    """After logins have waited in one event loop, others wait in another one."""

    async def enter() -> None:
        async with auth.login._admission():
            await asyncio.sleep(0)

    async def crowd() -> None:
        await asyncio.gather(*(enter() for _ in range(ADMITTED + 1)))

    await crowd()
    await asyncio.to_thread(asyncio.run, crowd())

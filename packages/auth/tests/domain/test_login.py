"""Login with lockout, with the in-memory fakes: what is checked, counted, answered and audited."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tequipy_auth import (
    AuditAction,
    Auth,
    Client,
    EmailNotVerified,
    HashingClient,
    InvalidAccessToken,
    InvalidCredentials,
    KeyUnusable,
    LoginLocked,
    Outcome,
    PasswordHash,
    Principal,
    ReauthRequired,
    TokenPair,
)
from tequipy_auth.domain.lockout import Lockout, Scope
from tequipy_auth.testing import (
    FakeAccessTokens,
    FakePasswordHasher,
    MemoryAuthUnitOfWork,
    RecordingOperations,
    build_fake_auth,
)
from tequipy_platform import Unavailable
from tequipy_platform.testing import FrozenClock

PASSWORD = "correct horse battery staple"
EMAIL = "ada@example.com"
HOME, CAFE = Client("192.0.2.1", "home"), Client("198.51.100.7", "café")
MOMENT = timedelta(seconds=1)
LOCK = timedelta(seconds=30)


class CountingHasher(FakePasswordHasher):
    """Counts password checks; `full` makes it raise `Unavailable`, `dies` makes it never return."""

    def __init__(self) -> None:
        self.looked_at = 0
        self.full = False
        self.dies = False
        self.highest_costs: list[int] = []

    async def verify(
        self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
    ) -> bool:
        self.highest_costs.append(highest_cost)
        if self.dies:
            raise asyncio.CancelledError
        if self.full:
            raise Unavailable
        self.looked_at += 1
        return await super().verify(password, stored, client)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def operations() -> RecordingOperations:
    return RecordingOperations()


@pytest.fixture
async def auth(
    work: MemoryAuthUnitOfWork, clock: FrozenClock, hasher: CountingHasher, operations: RecordingOperations
) -> Auth:
    auth = build_fake_auth(work, clock=clock, hasher=hasher, operations=operations)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    return auth


async def log_in(auth: Auth, client: Client = HOME, *, email: str = EMAIL) -> TokenPair:
    return await auth.login.with_password(email=email, password=PASSWORD, client=client)


async def fail(auth: Auth, times: int = 1, client: Client = HOME, *, email: str = EMAIL) -> None:
    """Try wrong passwords; each attempt must be checked and refused."""
    for _ in range(times):
        with pytest.raises(InvalidCredentials):
            await auth.login.with_password(email=email, password="wrong", client=client)


async def is_locked(auth: Auth, client: Client = HOME, *, email: str = EMAIL) -> float:
    """Return the remaining seconds of the lock, even for the correct password."""
    with pytest.raises(LoginLocked) as refusal:
        await log_in(auth, client, email=email)
    return refusal.value.retry_after


def at(number: int) -> Client:
    return Client(f"203.0.113.{number}")


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


async def test_reauthentication_is_unavailable_without_a_signing_key(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """`reauthenticate` without a usable signing key raises `Unavailable` and leaves the session unchanged."""
    tokens = auth.access_tokens
    assert isinstance(tokens, FakeAccessTokens)
    principal = await auth.access_tokens.verify((await log_in(auth)).access.value)
    sessions = dict(work.sessions.rows)
    clock.advance(timedelta(minutes=1))
    tokens.error = KeyUnusable("it cannot be read")
    with pytest.raises(Unavailable):
        await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    assert work.sessions.rows == sessions


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

    principal = await auth.access_tokens.verify((await log_in(auth)).access.value)
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: log_in(auth),
        lambda: auth.login.reauthenticate(principal, password=PASSWORD, client=HOME),
        lambda: auth.passwords.change(
            principal, current_password=PASSWORD, new_password="an even better password", client=HOME
        ),
    ]
    for attempt in attempts:
        with monkeypatch.context() as patch:
            patch.setattr(work.users, "lock", fail_to_keep)
            for _ in range(10):
                with pytest.raises(Unavailable):
                    await attempt()
        await attempt()


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


@pytest.mark.usefixtures("auth")
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


@pytest.fixture
async def unverified(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    """Auth with open registration, and an unverified account."""
    auth = build_fake_auth(work, clock=clock, open_registration=True)
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=HOME)
    return auth


async def test_only_the_right_password_reveals_an_unverified_address(unverified: Auth) -> None:
    """With a wrong password an unverified account answers like any other."""
    await fail(unverified)
    with pytest.raises(EmailNotVerified):
        await log_in(unverified)


async def test_an_unverified_address_is_no_failure(unverified: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The correct password for an unverified account neither locks nor clears counters."""
    await fail(unverified, 4)
    for _ in range(20):
        with pytest.raises(EmailNotVerified):
            await log_in(unverified)
    assert not work.sessions.rows
    assert work.audit.events[-1].reason == "email_not_verified"
    await fail(unverified)
    assert await is_locked(unverified) == 30


@pytest.fixture
async def principal(auth: Auth) -> Principal:
    return await auth.access_tokens.verify((await log_in(auth)).access.value)


async def test_a_reauthentication_renews_the_authentication_time(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, clock: FrozenClock
) -> None:
    """The new access token and the session have the new time; the refresh tokens stay unchanged."""
    clock.advance(timedelta(hours=1))
    tokens = dict(work.refresh_tokens.rows)
    token = await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    renewed = await auth.access_tokens.verify(token.value)
    assert renewed == replace(principal, auth_time=clock.now())
    assert work.sessions.rows[principal.session_id].auth_time == clock.now()
    assert work.refresh_tokens.rows == tokens
    assert (work.audit.events[-1].action, work.audit.events[-1].reason) == (AuditAction.LOGIN_OK, "reauthenticate")


async def fail_again(auth: Auth, principal: Principal, times: int) -> None:
    """Try a wrong password in a session."""
    for _ in range(times):
        with pytest.raises(InvalidCredentials):
            await auth.login.reauthenticate(principal, password="wrong", client=HOME)


async def test_a_session_has_its_own_counter(auth: Auth, principal: Principal, clock: FrozenClock) -> None:
    """A stolen access token allows five guesses from all clients together; other sessions are not affected."""
    other = await auth.access_tokens.verify((await log_in(auth)).access.value)
    await fail_again(auth, principal, 5)
    for client in (HOME, CAFE):
        with pytest.raises(LoginLocked) as refusal:
            await auth.login.reauthenticate(principal, password=PASSWORD, client=client)
        assert refusal.value.retry_after == 30
    await auth.login.reauthenticate(other, password=PASSWORD, client=HOME)
    await log_in(auth, HOME)
    clock.advance(LOCK)
    await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await fail_again(auth, principal, 5)


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


Step = tuple[str, int]
"""What attackers do, and how often or for how many minutes."""


@settings(max_examples=60, deadline=None)
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
        session = replace(
            session,
            auth_time=(
                await auth.access_tokens.verify(
                    (await auth.login.reauthenticate(session, password=PASSWORD, client=HOME)).value
                )
            ).auth_time,
        )


async def test_a_session_that_has_ended_is_not_renewed(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, clock: FrozenClock
) -> None:
    """Reauthentication and sensitive operations refuse a token of an ended session."""
    await work.sessions.revoke(principal.session_id, at=clock.now(), reason="logout")
    with pytest.raises(InvalidAccessToken):
        await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    with pytest.raises(InvalidAccessToken):
        await auth.login.require_fresh(principal)


async def test_a_sensitive_operation_needs_fresh_authentication(
    auth: Auth, principal: Principal, clock: FrozenClock
) -> None:
    """It is allowed for less than five minutes after a login or reauthentication, independent of the token's claims."""
    clock.advance(timedelta(minutes=5) - MOMENT)
    await auth.login.require_fresh(principal)
    clock.advance(MOMENT)
    with pytest.raises(ReauthRequired):
        await auth.login.require_fresh(principal)
    await auth.login.reauthenticate(principal, password=PASSWORD, client=HOME)
    await auth.login.require_fresh(principal)


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

"""Repositories and unit of work: one contract suite for memory and PostgreSQL."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tequipy_auth import (
    AuthUnitOfWork,
    Client,
    Device,
    EmailAddress,
    EmailTaken,
    KeyState,
    OneTimeToken,
    PasswordHash,
    Purpose,
    RefreshToken,
    Registration,
    Role,
    Session,
    SigningKey,
    User,
)
from tequipy_auth.infrastructure.models import SessionRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.database import Database
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock

NOW = EPOCH
HOUR = timedelta(hours=1)
PASSWORD = PasswordHash("scheme", 12, 3, "digest")
VERIFY = Purpose.VERIFY_EMAIL

new_id = CountingIds()
Work = Callable[[], AuthUnitOfWork]


@pytest.fixture(params=["memory", "postgresql"])
def work(request: pytest.FixtureRequest) -> Work:
    """Return a function that creates units of work over one store."""
    if request.param == "memory":
        held = MemoryAuthUnitOfWork(FrozenClock())
        return lambda: held
    database: Database = request.getfixturevalue("database")
    return lambda: SqlAuthUnitOfWork(database, FrozenClock(), new_id)


def make_registration(email: str = "ada@example.com") -> Registration:
    return Registration(
        id=new_id(),
        email=EmailAddress(email.title(), email),
        name=None,
        password=PASSWORD,
        created_at=NOW,
        expires_at=NOW + HOUR,
    )


def make_user(email: str = "ada@example.com") -> User:
    return User(
        id=new_id(),
        email=EmailAddress(email.title(), email),
        email_verified=True,
        name="Ada",
        password=PASSWORD,
        roles=("admin", "user"),
        created_at=NOW,
        version=2,
    )


def make_session(user_id: UUID, client: Client = Client("192.0.2.1", "test")) -> Session:  # noqa: B008 -- frozen
    return Session(
        id=new_id(),
        user_id=user_id,
        client=client,
        amr=("pwd",),
        auth_time=NOW,
        created_at=NOW,
        last_used_at=NOW,
        idle_expires_at=NOW + HOUR,
        absolute_expires_at=NOW + 2 * HOUR,
    )


def make_refresh_token(session: Session, parent_id: UUID | None = None) -> RefreshToken:
    return RefreshToken(new_id(), session.id, parent_id, "hash", 7, NOW)


def make_one_time_token(subject_id: UUID, *, age: timedelta = timedelta(0)) -> OneTimeToken:
    return OneTimeToken(new_id(), VERIFY, subject_id, b"hash", NOW - age, NOW + HOUR)


@pytest.fixture
async def session(work: Work) -> Session:
    """Return a stored session with its user."""
    user = make_user("owner@example.com")
    session = make_session(user.id)
    async with work() as unit:
        await unit.users.add(user)
        await unit.sessions.add(session)
    return session


async def test_stored_entities_are_returned(work: Work, session: Session) -> None:
    """Every entity is returned unchanged in a later unit of work."""
    registration, user, token = make_registration(), make_user(), make_refresh_token(session)
    child = make_refresh_token(session, token.id)
    anonymous = make_session(user.id, Client())
    async with work() as unit:
        await unit.registrations.add(registration)
        await unit.users.add(user)
        await unit.sessions.add(anonymous)
        await unit.refresh_tokens.add(token)
        await unit.refresh_tokens.add(child)
    async with work() as unit:
        assert await unit.registrations.get(registration.id) == registration
        assert await unit.users.get(user.id) == user
        assert await unit.users.by_email("ada@example.com") == user
        assert await unit.sessions.get(session.id) == session
        assert await unit.sessions.get(anonymous.id) == anonymous
        assert await unit.refresh_tokens.get(token.id) == token
        assert await unit.refresh_tokens.child_of(token.id) == child


async def test_unknown_entities_are_none(work: Work) -> None:
    """Unknown ids and addresses return None and never raise an error."""
    async with work() as unit:
        assert await unit.registrations.get(new_id()) is None
        assert await unit.users.get(new_id()) is None
        assert await unit.users.by_email("nobody@example.com") is None
        assert await unit.sessions.get(new_id()) is None
        assert await unit.refresh_tokens.get(new_id()) is None
        assert await unit.refresh_tokens.child_of(new_id()) is None
        assert await unit.one_time_tokens.consume(new_id(), VERIFY, b"hash", at=NOW) is None


async def test_an_error_rolls_everything_back(work: Work) -> None:
    """A unit of work that ends with an exception stores nothing, also not in the outbox."""
    user, registration = make_user(), make_registration()

    async def fail() -> None:
        async with work() as unit:
            await unit.users.add(user)
            await unit.registrations.add(registration)
            unit.outbox.add("auth.send_mail")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with work() as unit:
        assert await unit.users.get(user.id) is None
        assert await unit.registrations.get(registration.id) is None
        assert not await outbox_tasks(unit)


async def test_a_commit_stores_the_outbox_too(work: Work) -> None:
    """Outbox rows are stored with the other rows."""
    async with work() as unit:
        unit.outbox.add("auth.send_mail", mail="registration")
    async with work() as unit:
        assert await outbox_tasks(unit) == ["auth.send_mail"]


async def outbox_tasks(unit: AuthUnitOfWork) -> list[str]:
    if isinstance(unit, SqlAuthUnitOfWork):
        return list(await unit.session.scalars(text("select task from platform.outbox")))
    assert isinstance(unit, MemoryAuthUnitOfWork)
    return [added.task for added in unit.outbox.tasks]


async def test_one_address_is_one_account(work: Work) -> None:
    """A second account of an address is refused, and the unit of work can still commit."""
    first, other = make_user(), make_user("other@example.com")
    async with work() as unit:
        await unit.users.add(first)
        with pytest.raises(EmailTaken):
            await unit.users.add(make_user())
        await unit.users.add(other)
    async with work() as unit:
        assert await unit.users.by_email("ada@example.com") == first
        assert await unit.users.get(other.id) == other


async def test_concurrent_accounts_of_an_address_are_refused(work: Work) -> None:
    """Of 10 concurrent accounts of one address one is stored, the others raise `EmailTaken`."""

    async def add() -> None:
        async with work() as unit:
            await unit.users.add(make_user())

    answers = await asyncio.gather(*(add() for _ in range(10)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["EmailTaken"] * 9 + ["NoneType"]


async def test_registrations_are_deleted_by_address(work: Work) -> None:
    """All registrations of the address are deleted, others stay."""
    mine, more, others = make_registration(), make_registration(), make_registration("other@example.com")
    async with work() as unit:
        for registration in (mine, more, others):
            await unit.registrations.add(registration)
        await unit.registrations.delete_for("ada@example.com")
    async with work() as unit:
        found = [await unit.registrations.get(registration.id) for registration in (mine, more, others)]
        assert found == [None, None, others]


async def test_a_session_is_touched_until_it_is_revoked(work: Work, session: Session) -> None:
    """Use of a session updates its idle expiry and client; after its revocation nothing changes any more."""
    later, phone = NOW + HOUR, Client("2001:db8::1", "phone")
    async with work() as unit:
        assert await unit.sessions.touch(
            session.id,
            last_used_at=later,
            idle_expires_at=later + HOUR,
            client=replace(phone, device_mark="a mark"),
        )
    async with work() as unit:
        touched = replace(session, last_used_at=later, idle_expires_at=later + HOUR, last_client=phone)
        assert await unit.sessions.get(session.id) == touched
        assert await unit.sessions.revoke(session.id, at=later, reason="logout")
        assert not await unit.sessions.revoke(session.id, at=later + HOUR, reason="logout")
        assert not await unit.sessions.touch(session.id, last_used_at=NOW, idle_expires_at=NOW, client=Client())
        assert await unit.sessions.get(session.id) == replace(touched, revoked_at=later)


@pytest.mark.parametrize("work", ["postgresql"], indirect=True)
async def test_rows_are_read_in_their_current_state(work: Work, session: Session) -> None:
    """Values that the SQLAlchemy session has cached are not returned."""
    async with work() as unit:
        assert isinstance(unit, SqlAuthUnitOfWork)
        seen = await unit.session.get(SessionRow, session.id)
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
        assert await unit.sessions.get(session.id) == replace(session, revoked_at=NOW)
        assert seen is not None


async def test_an_unknown_session_cannot_be_touched(work: Work) -> None:
    """Use and revocation of a missing session return False."""
    async with work() as unit:
        assert not await unit.sessions.touch(new_id(), last_used_at=NOW, idle_expires_at=NOW, client=Client())
        assert not await unit.sessions.revoke(new_id(), at=NOW, reason="logout")


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


async def eventually_waiting(database: Database) -> None:
    """Wait a few seconds until a connection of this database waits for another transaction."""
    query = (
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
    )
    async with asyncio.timeout(30), database.engine.connect() as connection:
        while not await connection.scalar(text(query)):
            await connection.rollback()


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


async def test_all_sessions_of_an_account_are_revoked(work: Work, session: Session) -> None:
    """All live sessions of the account except `keep` are revoked and returned."""
    second, third, ended = (make_session(session.user_id) for _ in range(3))
    stranger = make_user("eve@example.com")
    theirs = make_session(stranger.id)
    async with work() as unit:
        await unit.users.add(stranger)
        for each in (second, third, ended, theirs):
            await unit.sessions.add(each)
        await unit.sessions.revoke(ended.id, at=NOW, reason="logout")
    async with work() as unit:
        assert set(await unit.sessions.revoke_all(session.user_id, keep=third.id, at=NOW, reason="test")) == {
            session.id,
            second.id,
        }
    async with work() as unit:
        assert [each.id for each in await unit.sessions.live_of(session.user_id, at=NOW)] == [third.id]
        assert list(await unit.sessions.revoke_all(session.user_id, at=NOW, reason="test")) == [third.id]
        assert [each.id for each in await unit.sessions.live_of(stranger.id, at=NOW)] == [theirs.id]


async def test_live_sessions_are_those_that_have_not_ended(work: Work, session: Session) -> None:
    """Live sessions are neither revoked nor expired; the latest login comes first."""
    newer = replace(make_session(session.user_id), created_at=NOW + timedelta(minutes=1))
    idle = replace(make_session(session.user_id), idle_expires_at=NOW)
    over = replace(make_session(session.user_id), absolute_expires_at=NOW)
    async with work() as unit:
        for each in (newer, idle, over):
            await unit.sessions.add(each)
    async with work() as unit:
        assert [each.id for each in await unit.sessions.live_of(session.user_id, at=NOW)] == [newer.id, session.id]
        assert [each.id for each in await unit.sessions.live_of(session.user_id, at=NOW, beyond=1)] == [session.id]
        assert await unit.sessions.live_of(session.user_id, at=NOW + HOUR) == []


async def test_recent_revocations_are_returned(work: Work, session: Session) -> None:
    """The store returns the sessions and account versions that were revoked after a time."""
    old, recent = NOW - HOUR, NOW - timedelta(minutes=1)
    before, stranger = make_session(session.user_id), make_user("eve@example.com")
    async with work() as unit:
        await unit.users.add(stranger)
        await unit.sessions.add(before)
        await unit.sessions.revoke(before.id, at=old, reason="test")
        await unit.sessions.revoke(session.id, at=recent, reason="test")
        assert await unit.users.supersede(session.user_id, at=old) == 2
        assert await unit.users.supersede(stranger.id, at=recent) == 2
        assert await unit.users.supersede(stranger.id, at=recent) == 3
        assert await unit.users.supersede(new_id(), at=recent) is None
    async with work() as unit:
        assert await unit.sessions.revoked_since(NOW - HOUR / 2) == {session.id: recent}
        assert await unit.users.superseded_since(NOW - HOUR / 2) == {stranger.id: (4, recent)}
        assert await unit.sessions.revoked_since(recent) == {}
        changed = await unit.users.get(stranger.id)
    assert changed is not None
    assert changed.version == 4


def make_key(kid: str, state: KeyState, *, age: timedelta = timedelta(0)) -> SigningKey:
    return SigningKey(kid, "ES256", state, {"kty": "EC"}, b"encrypted", 1, NOW - age, NOW - age)


async def test_signing_keys_are_returned_oldest_first(work: Work) -> None:
    """Every key is returned unchanged, oldest first, in its current state."""
    young, old = make_key("young", KeyState.NEXT), make_key("old", KeyState.ACTIVE, age=HOUR)
    async with work() as unit:
        await unit.signing_keys.add(young)
        await unit.signing_keys.add(old)
    async with work() as unit:
        await unit.signing_keys.lock()
        assert list(await unit.signing_keys.all()) == [old, young]
        await unit.signing_keys.move("old", KeyState.RETIRING, at=NOW)
        await unit.signing_keys.move("young", KeyState.ACTIVE, at=NOW)
    async with work() as unit:
        states = [(key.kid, key.state, key.state_changed_at) for key in await unit.signing_keys.all()]
    assert states == [("old", KeyState.RETIRING, NOW), ("young", KeyState.ACTIVE, NOW)]


async def test_replacing_a_key_changes_its_encryption_only(work: Work) -> None:
    """Only the private key and its version are replaced."""
    first, second = make_key("first", KeyState.ACTIVE, age=HOUR), make_key("second", KeyState.NEXT)
    changed = replace(first, private_key=b"anew", encryption_version=None)
    async with work() as unit:
        await unit.signing_keys.add(first)
        await unit.signing_keys.add(second)
        await unit.signing_keys.replace(replace(changed, state=KeyState.RETIRING))
    async with work() as unit:
        assert list(await unit.signing_keys.all()) == [changed, second]


async def test_revoking_a_key_deletes_its_private_key(work: Work) -> None:
    """A revoked key cannot sign in any later state; other changes of state delete nothing."""
    async with work() as unit:
        await unit.signing_keys.add(make_key("key", KeyState.ACTIVE))
        await unit.signing_keys.move("key", KeyState.RETIRING, at=NOW)
        assert [key.private_key for key in await unit.signing_keys.all()] == [b"encrypted"]
        await unit.signing_keys.move("key", KeyState.REVOKED, at=NOW)
    async with work() as unit:
        assert [key.private_key for key in await unit.signing_keys.all()] == [b""]


async def test_one_key_is_active(work: Work) -> None:
    """The store refuses a second active key."""
    async with work() as unit:
        await unit.signing_keys.add(make_key("first", KeyState.ACTIVE))
    with pytest.raises((ValueError, IntegrityError)):
        async with work() as unit:
            await unit.signing_keys.add(make_key("second", KeyState.ACTIVE))


async def test_the_lock_of_signing_keys_is_exclusive(work: Work) -> None:
    """The holder of the lock is alone until its unit of work ends."""
    seen: list[int] = []

    async def change(number: int) -> None:
        async with work() as unit:
            await unit.signing_keys.lock()
            seen.append(len(await unit.signing_keys.all()))
            await unit.signing_keys.add(make_key(f"key-{number}", KeyState.NEXT))

    await asyncio.gather(*(change(number) for number in range(5)))
    assert seen == [0, 1, 2, 3, 4]


async def test_the_lock_of_an_account_is_exclusive(work: Work) -> None:
    """The next holder of the lock sees the previous changes; inserting a session does not wait."""
    user = make_user()
    async with work() as unit:
        await unit.users.add(user)
    renamed = asyncio.Event()

    async def rename() -> None:
        async with work() as unit:
            assert await unit.users.lock(user.id) == user
            renamed.set()
            await asyncio.sleep(0)
            await unit.users.set_name(user.id, "Countess")

    async def read() -> None:
        await renamed.wait()
        async with work() as unit:
            locked = await unit.users.lock(user.id)
            assert locked is not None
            assert locked.name == "Countess"

    await asyncio.gather(rename(), read())
    async with work() as unit:
        assert await unit.users.lock(new_id()) is None


async def test_an_account_changes_in_parts(work: Work) -> None:
    """Password, verification and name are changed separately; an unknown account changes nothing."""
    user = replace(make_user(), email_verified=False)
    password = PasswordHash("other", 4, 9, "other digest")
    async with work() as unit:
        await unit.users.add(user)
    async with work() as unit:
        await unit.users.set_password(user.id, password)
        await unit.users.set_verified(user.id)
        assert await unit.users.set_name(user.id, None) == replace(
            user, password=password, password_epoch=1, email_verified=True, name=None
        )
        assert await unit.users.set_name(new_id(), "Nobody") is None
        await unit.users.set_password(new_id(), password)
        await unit.users.renew_password_hash(new_id(), password)
        await unit.users.set_verified(new_id())


async def test_a_new_password_increments_the_epoch(work: Work, session: Session) -> None:
    """Setting a password increments the epoch; a new hash of the same password does not."""
    other = PasswordHash("scheme", 13, 3, "another digest")
    for epoch in (1, 2):
        async with work() as unit:
            await unit.users.set_password(session.user_id, PASSWORD)
            await unit.users.renew_password_hash(session.user_id, other)
            user = await unit.users.get(session.user_id)
        assert user is not None
        assert (user.password_epoch, user.password) == (epoch, other)


async def test_a_device_is_live_until_it_expires(work: Work, session: Session) -> None:
    """A device belongs to one account; storing it again renews it, but not for another account."""
    stranger = make_user("stranger@example.com")
    device = Device("phone", session.user_id, NOW, NOW + HOUR)
    async with work() as unit:
        await unit.users.add(stranger)
        await unit.devices.put(device, keep=10)
        assert await unit.devices.is_live("phone", session.user_id, at=NOW + HOUR - timedelta(microseconds=1))
        assert not await unit.devices.is_live("phone", session.user_id, at=NOW + HOUR)
        assert not await unit.devices.is_live("tablet", session.user_id, at=NOW)
        assert not await unit.devices.is_live("phone", stranger.id, at=NOW)
    async with work() as unit:
        await unit.devices.put(replace(device, last_used_at=NOW + HOUR, expires_at=NOW + 2 * HOUR), keep=10)
        await unit.devices.put(replace(device, user_id=stranger.id), keep=10)
    async with work() as unit:
        assert await unit.devices.is_live("phone", session.user_id, at=NOW + HOUR)
        assert not await unit.devices.is_live("phone", stranger.id, at=NOW)


async def test_the_least_recently_used_devices_are_deleted(work: Work, session: Session) -> None:
    """An account keeps the stored device and its most recently used other devices."""
    stranger = make_user("stranger@example.com")
    async with work() as unit:
        await unit.users.add(stranger)
        await unit.devices.put(Device("foreign", stranger.id, NOW - HOUR, NOW + HOUR), keep=3)
        for number in (3, 1, 2, 4, 0):
            used = NOW + number * timedelta(minutes=1)
            await unit.devices.put(Device(str(number), session.user_id, used, NOW + HOUR), keep=3)
    async with work() as unit:
        live = [await unit.devices.is_live(str(number), session.user_id, at=NOW) for number in range(5)]
        assert live == [True, False, False, True, True]
        assert await unit.devices.is_live("foreign", stranger.id, at=NOW)


async def test_expired_devices_are_purged(work: Work, session: Session) -> None:
    """Devices that expired before a time are deleted, no more than the limit each time."""
    async with work() as unit:
        for number in range(4):
            await unit.devices.put(Device(str(number), session.user_id, NOW, NOW + number * HOUR), keep=10)
    purged = []
    for _ in range(3):
        async with work() as unit:
            purged.append(await unit.devices.purge(before=NOW + 2 * HOUR, limit=2))
    assert purged == [2, 1, 0]
    async with work() as unit:
        assert await unit.devices.is_live("3", session.user_id, at=NOW)


@pytest.mark.parametrize("work", ["postgresql"], indirect=True)
async def test_devices_are_deleted_with_their_account(work: Work, session: Session) -> None:
    """Deleting an account deletes its devices."""
    async with work() as unit:
        assert isinstance(unit, SqlAuthUnitOfWork)
        await unit.devices.put(Device("phone", session.user_id, NOW, NOW + HOUR), keep=10)
        await unit.session.execute(text("delete from auth.users"))
        assert (await unit.session.scalar(text("select count(*) from auth.devices"))) == 0


async def test_the_newest_registration_of_an_address(work: Work) -> None:
    """The latest unexpired registration of an address is returned."""
    older = replace(make_registration(), created_at=NOW - HOUR)
    newer, foreign = make_registration(), make_registration("bob@example.com")
    async with work() as unit:
        for registration in (newer, older, foreign):
            await unit.registrations.add(registration)
        assert await unit.registrations.newest_of("ada@example.com", at=NOW) == newer
        assert await unit.registrations.newest_of("ada@example.com", at=newer.expires_at) is None
        assert await unit.registrations.newest_of("nobody@example.com", at=NOW) is None


async def test_a_reauthentication_updates_a_live_session(work: Work, session: Session) -> None:
    """The authentication time of a live session changes, that of a revoked or missing one does not."""
    async with work() as unit:
        assert await unit.sessions.reauthenticate(session.id, at=NOW + HOUR)
        assert await unit.sessions.get(session.id) == replace(session, auth_time=NOW + HOUR)
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
        assert not await unit.sessions.reauthenticate(session.id, at=NOW + 2 * HOUR)
        assert not await unit.sessions.reauthenticate(new_id(), at=NOW)


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


async def test_the_highest_password_cost_is_one_that_may_be_checked(work: Work) -> None:
    """It is 0 without accounts, and ignores costs that are never checked."""
    async with work() as unit:
        assert await unit.users.highest_password_cost() == 0
        for cost in (12, 14, 16, 10):
            user = make_user(f"{cost}@example.com")
            await unit.users.add(replace(user, password=replace(user.password, cost=cost)))
    async with work() as unit:
        assert await unit.users.highest_password_cost() == 14


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


async def test_expired_rows_are_purged_in_batches(work: Work, session: Session) -> None:
    """Only rows that expired before the time are deleted, no more than the limit each time."""
    ended = [make_session(session.user_id) for _ in range(3)]
    async with work() as unit:
        for number in range(3):
            await unit.registrations.add(make_registration(f"{number}@example.com"))
            await unit.one_time_tokens.add(make_one_time_token(new_id()), keep=3)
            await unit.sessions.add(ended[number])
            await unit.refresh_tokens.add(make_refresh_token(ended[number]))
            await unit.sessions.revoke(ended[number].id, at=NOW, reason="logout")
    for moment, counts in ((NOW - HOUR, (0, 0, 0)), (NOW, (0, 0, 2)), (NOW + HOUR, (2, 2, 2)), (NOW + HOUR, (1, 1, 0))):
        async with work() as unit:
            purged = (
                await unit.registrations.purge(before=moment, limit=2),
                await unit.one_time_tokens.purge(before=moment, limit=2),
                await unit.sessions.purge(before=moment, limit=2),
            )
        assert purged == counts, moment
    async with work() as unit:
        assert await unit.sessions.get(session.id) is None, "it was idle for too long"


async def test_a_role_replaces_the_role_of_the_same_name(work: Work) -> None:
    """Each name has one role, the latest; roles are sorted by name."""
    async with work() as unit:
        for role in (Role("support", ("users:read",)), Role("auditor"), Role("support", ("audit:read", "users:read"))):
            await unit.roles.put(role)
    async with work() as unit:
        assert list(await unit.roles.all()) == [Role("auditor"), Role("support", ("audit:read", "users:read"))]


async def charge(work: Work, message_id: UUID, *, key: str = "a", at: timedelta = timedelta(0)) -> bool:
    """Charge a message to a budget of 2 per hour."""
    async with work() as unit:
        return await unit.mail_charges.charge(message_id, key, at=NOW + at, since=NOW + at - HOUR, limit=2)


async def test_a_budget_is_charged_once_for_each_message(work: Work) -> None:
    """Charging a message again moves its charge to the later time; a third message is refused until then."""
    first, second, third = new_id(), new_id(), new_id()
    assert [await charge(work, each) for each in (first, second, third, first)] == [True, True, False, True]
    assert await charge(work, third, key="b"), "another key has a budget of its own"
    assert await charge(work, first, at=HOUR / 2)
    fourth, fifth = new_id(), new_id()
    assert [await charge(work, each, at=HOUR) for each in (fourth, fifth)] == [True, False]


async def test_a_charge_is_released(work: Work) -> None:
    """A released charge makes room for another message; releasing an uncharged message is no error."""
    first, second, third = new_id(), new_id(), new_id()
    assert await charge(work, first)
    assert await charge(work, second)
    async with work() as unit:
        await unit.mail_charges.release(first)
        await unit.mail_charges.release(new_id())
    assert await charge(work, third)


async def test_old_charges_are_purged(work: Work) -> None:
    """Charges from before a time are deleted, no more than the limit each time."""
    for number in range(3):
        await charge(work, new_id(), key=str(number))
    await charge(work, new_id(), at=HOUR)
    async with work() as unit:
        assert await unit.mail_charges.purge(before=NOW, limit=2) == 2
        assert await unit.mail_charges.purge(before=NOW, limit=2) == 1
        assert await unit.mail_charges.purge(before=NOW, limit=2) == 0


async def test_concurrent_charges_do_not_exceed_the_budget(work: Work) -> None:
    """Two of 20 concurrent charges succeed."""
    outcomes = await asyncio.gather(*(charge(work, new_id()) for _ in range(20)))
    assert outcomes.count(True) == 2


async def test_pending_registrations_are_counted(work: Work) -> None:
    """Only unexpired registrations of the address are counted."""
    async with work() as unit:
        for email in ("ada@example.com", "ada@example.com", "bob@example.com"):
            await unit.registrations.add(make_registration(email))
    async with work() as unit:
        await unit.registrations.lock("ada@example.com")
        assert await unit.registrations.count_pending("ada@example.com", at=NOW) == 2
        assert await unit.registrations.count_pending("ada@example.com", at=NOW + HOUR) == 0
        assert await unit.registrations.count_pending("nobody@example.com", at=NOW) == 0


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

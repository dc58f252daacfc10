"""Repositories and unit of work: one suite over memory and PostgreSQL alike."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tequipy_auth import (
    AuthUnitOfWork,
    Client,
    EmailAddress,
    EmailTaken,
    OneTimeToken,
    PasswordHash,
    Purpose,
    RefreshToken,
    Registration,
    Session,
    User,
)
from tequipy_auth.infrastructure.models import SessionRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock
from tequipy_platform.wiring import Database

NOW = EPOCH
HOUR = timedelta(hours=1)
PASSWORD = PasswordHash("scheme", 12, 3, "digest")
VERIFY = Purpose.VERIFY_EMAIL

new_id = CountingIds()
Work = Callable[[], AuthUnitOfWork]


@pytest.fixture(params=["memory", "postgresql"])
def work(request: pytest.FixtureRequest) -> Work:
    """Return the maker of units of work over one store."""
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
    """Return a session that is kept, with its user."""
    user = make_user("owner@example.com")
    session = make_session(user.id)
    async with work() as unit:
        await unit.users.add(user)
        await unit.sessions.add(session)
    return session


async def test_what_is_kept_is_found_again(work: Work, session: Session) -> None:
    """Every entity comes back equal to what was kept, in a later unit of work."""
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


async def test_what_is_unknown_is_none(work: Work) -> None:
    """Unknown ids and addresses are None, never an error."""
    async with work() as unit:
        assert await unit.registrations.get(new_id()) is None
        assert await unit.users.get(new_id()) is None
        assert await unit.users.by_email("nobody@example.com") is None
        assert await unit.sessions.get(new_id()) is None
        assert await unit.refresh_tokens.get(new_id()) is None
        assert await unit.refresh_tokens.child_of(new_id()) is None
        assert await unit.one_time_tokens.consume(new_id(), VERIFY, b"hash", at=NOW) is None


async def test_an_error_takes_everything_back(work: Work) -> None:
    """A block that is left by an exception leaves no trace, in the outbox neither."""
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


async def test_a_commit_keeps_the_outbox_too(work: Work) -> None:
    """What was asked for in a clean block is there after it."""
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
    """A second account of an address is refused, and the unit of work goes on and commits."""
    first, other = make_user(), make_user("other@example.com")
    async with work() as unit:
        await unit.users.add(first)
        with pytest.raises(EmailTaken):
            await unit.users.add(make_user())
        await unit.users.add(other)
    async with work() as unit:
        assert await unit.users.by_email("ada@example.com") == first
        assert await unit.users.get(other.id) == other


async def test_accounts_made_at_once_are_one(work: Work) -> None:
    """Of 10 concurrent accounts of one address one is kept, the others learn that it is taken."""

    async def add() -> None:
        async with work() as unit:
            await unit.users.add(make_user())

    answers = await asyncio.gather(*(add() for _ in range(10)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["EmailTaken"] * 9 + ["NoneType"]


async def test_registrations_are_forgotten_by_address(work: Work) -> None:
    """All registrations of the address go, others stay."""
    mine, more, others = make_registration(), make_registration(), make_registration("other@example.com")
    async with work() as unit:
        for registration in (mine, more, others):
            await unit.registrations.add(registration)
        await unit.registrations.delete_for("ada@example.com")
    async with work() as unit:
        found = [await unit.registrations.get(registration.id) for registration in (mine, more, others)]
        assert found == [None, None, others]


async def test_a_session_is_touched_until_it_is_revoked(work: Work, session: Session) -> None:
    """A touch moves the idle end; a revocation is recorded once, and then nothing moves any more."""
    later = NOW + HOUR
    async with work() as unit:
        assert await unit.sessions.touch(session.id, last_used_at=later, idle_expires_at=later + HOUR)
    async with work() as unit:
        touched = replace(session, last_used_at=later, idle_expires_at=later + HOUR)
        assert await unit.sessions.get(session.id) == touched
        assert await unit.sessions.revoke(session.id, at=later, reason="logout")
        assert not await unit.sessions.revoke(session.id, at=later + HOUR, reason="logout")
        assert not await unit.sessions.touch(session.id, last_used_at=NOW, idle_expires_at=NOW)
        assert await unit.sessions.get(session.id) == replace(touched, revoked_at=later)


@pytest.mark.parametrize("work", ["postgresql"], indirect=True)
async def test_a_row_is_read_as_it_is_now(work: Work, session: Session) -> None:
    """What SQLAlchemy's session has seen of a row before does not stand in for what it is."""
    async with work() as unit:
        assert isinstance(unit, SqlAuthUnitOfWork)
        seen = await unit.session.get(SessionRow, session.id)
        await unit.sessions.revoke(session.id, at=NOW, reason="logout")
        assert await unit.sessions.get(session.id) == replace(session, revoked_at=NOW)
        assert seen is not None


async def test_an_unknown_session_cannot_be_touched(work: Work) -> None:
    """Neither touch nor revocation of a session that is gone claims to have happened."""
    async with work() as unit:
        assert not await unit.sessions.touch(new_id(), last_used_at=NOW, idle_expires_at=NOW)
        assert not await unit.sessions.revoke(new_id(), at=NOW, reason="logout")


async def test_a_token_is_claimed_once(work: Work, session: Session) -> None:
    """Of 10 concurrent claims one succeeds, and the time it says is kept."""
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


async def test_a_claim_that_is_rolled_back_is_free_again(work: Work, session: Session) -> None:
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
    """A second child of one parent is an error of the program, never kept."""
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


async def test_a_one_time_token_is_used_up_with_its_family(work: Work) -> None:
    """Using one gives its subject and kills its siblings; another subject's tokens live on."""
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


async def test_a_wrong_or_late_token_uses_nothing_up(work: Work) -> None:
    """A wrong secret and an expired token give nothing and change nothing."""
    token = make_one_time_token(new_id())
    async with work() as unit:
        await unit.one_time_tokens.add(token, keep=3)
    async with work() as unit:
        assert await unit.one_time_tokens.consume(token.id, VERIFY, b"guess", at=NOW) is None
        assert await unit.one_time_tokens.consume(token.id, VERIFY, b"hash", at=token.expires_at) is None
        just_in_time = token.expires_at - timedelta(microseconds=1)
        assert await unit.one_time_tokens.consume(token.id, VERIFY, b"hash", at=just_in_time) == token.subject_id


async def test_the_newest_tokens_live(work: Work) -> None:
    """Of a subject the newest tokens stay, by age and not by the order of their keeping."""
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


async def test_siblings_used_at_once_are_good_once(work: Work) -> None:
    """Of 10 concurrent uses of one subject's three tokens one is good, and none waits for another for ever."""
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


async def test_tokens_minted_at_once_do_not_exceed_their_number(work: Work) -> None:
    """However many attempts mint at once, three tokens live."""
    subject = new_id()
    tokens = [make_one_time_token(subject) for _ in range(10)]

    async def add(token: OneTimeToken) -> None:
        async with work() as unit:
            await unit.one_time_tokens.add(token, keep=3)

    await asyncio.gather(*map(add, tokens))
    async with work() as unit:
        assert len(await live_tokens(unit)) == 3

"""The audit: one contract suite for memory and PostgreSQL, and the restrictions of the database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from tequipy_auth import (
    AuditAction,
    AuditEvent,
    AuditFilter,
    AuditLog,
    AuditRecord,
    AuthPolicy,
    AuthUnitOfWork,
    Client,
    EmailAddress,
    Outcome,
    PasswordHash,
    User,
    UserStatus,
)
from tequipy_auth.domain.policy import LEEWAY, MIN_AUDIT_RETENTION
from tequipy_auth.domain.services.housekeeping import Housekeeping
from tequipy_auth.infrastructure.repositories import SqlAuditLog, SqlAuthUnitOfWork, audit
from tequipy_auth.testing import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_observability import RequestContext, request_context
from tequipy_platform import Delivery, PageRequest, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.testing import EPOCH, CountingIds, FrozenClock

MOMENT = timedelta(seconds=1)
Store = tuple[Callable[[], AuthUnitOfWork], AuditLog]


@pytest.fixture(params=["memory", "postgresql"])
def store(request: pytest.FixtureRequest, clock: FrozenClock) -> Store:
    """Return a function that creates units of work over one store, and the log that reads it."""
    if request.param == "memory":
        held = MemoryAuthUnitOfWork(clock)
        return lambda: held, MemoryAuditLog(held.audit)
    database: Database = request.getfixturevalue("database")
    ids = CountingIds()
    return lambda: SqlAuthUnitOfWork(database, clock, ids), SqlAuditLog(database)


async def read(log: AuditLog, **bounds: Any) -> list[AuditRecord]:
    bounds = {"since": EPOCH, "until": EPOCH + timedelta(days=1)} | bounds
    return [record async for record in log.stream(**bounds)]


async def test_recorded_events_are_returned(store: Store) -> None:
    """Every field is returned, with the time of the event and the correlation id of the request."""
    work, log = store
    ids = CountingIds()
    event = AuditEvent(
        AuditAction.LOGIN_FAILED,
        Outcome.FAILURE,
        "invalid_credentials",
        actor_id=ids(),
        subject_id=ids(),
        session_id=ids(),
        client=Client("2001:db8::1", "test"),
        metadata={"operation": "login", "count": 2},
    )
    with request_context(RequestContext(correlation_id="a-request")):
        async with work() as unit:
            unit.audit.record(event)
            unit.audit.record(AuditEvent(AuditAction.REGISTERED))
    whole, bare = await read(log)
    assert (whole.event, whole.at, whole.correlation_id) == (event, EPOCH, "a-request")
    assert bare.event == AuditEvent(AuditAction.REGISTERED)
    assert whole.id != bare.id


async def test_a_rollback_discards_the_event(store: Store) -> None:
    """An event is stored only when its unit of work commits."""
    work, log = store

    async def fail() -> None:
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.REGISTERED))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await read(log) == []


async def test_the_stream_is_bounded_and_ordered(
    store: Store, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`since` is inclusive, `until` exclusive; only the requested actions are returned, oldest first, in batches."""
    monkeypatch.setattr(audit, "BATCH_SIZE", 2)
    work, log = store
    for _ in range(3):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
            unit.audit.record(AuditEvent(AuditAction.LOGOUT))
            unit.audit.record(AuditEvent(AuditAction.VERIFIED))
        clock.advance(MOMENT)
    everything = await read(log)
    assert [record.at for record in everything] == [EPOCH + n * MOMENT for n in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
    assert len({record.id for record in everything}) == 9
    some = await read(
        log,
        since=EPOCH + MOMENT,
        until=EPOCH + 2 * MOMENT,
        actions=[AuditAction.LOGIN_OK, AuditAction.LOGOUT],
    )
    assert [(record.at, record.event.action) for record in some] == [
        (EPOCH + MOMENT, AuditAction.LOGIN_OK),
        (EPOCH + MOMENT, AuditAction.LOGOUT),
    ]
    assert await read(log, actions=[]) == []


async def test_events_are_counted_by_utc_days(store: Store, clock: FrozenClock) -> None:
    """`since` is inclusive, `until` exclusive, in any time zone; a day without events is left out."""
    work, log = store
    midnight = EPOCH.replace(hour=0, minute=0) + timedelta(days=1)
    clock.advance(midnight - EPOCH - MOMENT)
    for wait in (MOMENT, MOMENT, timedelta(days=2), MOMENT):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
        clock.advance(wait)
    days = [(midnight + timedelta(days=n)).date() for n in (-1, 0, 2)]
    assert await log.counts(EPOCH, EPOCH + timedelta(days=5)) == dict(zip(days, (1, 2, 1), strict=True))
    since = midnight.astimezone(timezone(timedelta(hours=-11)))
    assert await log.counts(since, since + MOMENT) == {days[1]: 1}
    assert await log.counts(EPOCH, EPOCH + timedelta(hours=1)) == {}


async def test_events_are_counted_by_action_outcome_and_account(store: Store) -> None:
    """Only the requested actions and outcome count; an account counts once a day, an event without one never."""
    work, log = store
    ada, bob = UUID(int=1), UUID(int=2)
    async with work() as unit:
        for event in (
            AuditEvent(AuditAction.LOGIN_OK, subject_id=ada),
            AuditEvent(AuditAction.TOKEN_REFRESHED, subject_id=ada),
            AuditEvent(AuditAction.TOKEN_REFRESHED, subject_id=bob),
            AuditEvent(AuditAction.LOGIN_FAILED, Outcome.FAILURE, subject_id=UUID(int=3)),
            AuditEvent(AuditAction.REGISTERED),
            AuditEvent(AuditAction.REGISTERED, Outcome.FAILURE),
            AuditEvent("teleported", subject_id=UUID(int=4)),
        ):
            unit.audit.record(event)

    async def counted(*actions: AuditAction, **restrictions: Any) -> int | None:
        counts = await log.counts(EPOCH, EPOCH + timedelta(days=1), actions or None, **restrictions)
        return counts.get(EPOCH.date())

    active = (AuditAction.LOGIN_OK, AuditAction.TOKEN_REFRESHED)
    assert (await counted(), await counted(accounts=True)) == (7, 4)
    assert (await counted(*active), await counted(*active, accounts=True)) == (3, 2)
    assert (await counted(AuditAction.REGISTERED), await counted(AuditAction.REGISTERED, accounts=True)) == (2, None)
    assert await counted(AuditAction.REGISTERED, outcome=Outcome.SUCCESS) == 1
    assert await counted(outcome=Outcome.FAILURE, accounts=True) == 1
    assert await log.counts(EPOCH, EPOCH + timedelta(days=1), []) == {}


async def test_events_are_returned_in_pages(store: Store, clock: FrozenClock) -> None:
    """Every wanted event is on one page, the newest first, although others arrive between two pages."""
    work, log = store
    subject = UUID(int=1)
    for _ in range(5):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK, subject_id=subject))
            unit.audit.record(AuditEvent(AuditAction.LOGOUT, subject_id=subject))
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
        clock.advance(MOMENT)
    wanted = AuditFilter(subject, "login_ok", EPOCH + MOMENT, EPOCH + 4 * MOMENT)
    found: list[AuditRecord] = []
    request = PageRequest(limit=2)
    while True:
        page = await log.page(request, wanted)
        found += page.items
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK, subject_id=subject))
        if page.next_after is None:
            break
        request = PageRequest(2, page.next_after)
    assert [record.at for record in found] == [EPOCH + seconds * MOMENT for seconds in (3, 2, 1)]
    assert {(record.event.subject_id, record.event.action) for record in found} == {(subject, "login_ok")}


async def test_the_events_of_an_account_are_found(store: Store) -> None:
    """`account_id` finds the events about an account and those that it has caused, `subject_id` the former alone."""
    (work, log), ada, bob = store, UUID(int=1), UUID(int=2)
    async with work() as unit:
        for actor, subject in ((ada, ada), (ada, bob), (bob, ada), (bob, bob), (None, ada), (None, None)):
            unit.audit.record(AuditEvent(AuditAction.ROLE_CHANGED, actor_id=actor, subject_id=subject))

    async def found(wanted: AuditFilter) -> list[tuple[UUID | None, UUID | None]]:
        events = [record.event for record in reversed((await log.page(PageRequest(), wanted)).items)]
        return [(event.actor_id, event.subject_id) for event in events]

    assert await found(AuditFilter(account_id=ada)) == [(ada, ada), (ada, bob), (bob, ada), (None, ada)]
    assert await found(AuditFilter(subject_id=ada)) == [(ada, ada), (bob, ada), (None, ada)]


async def test_the_events_of_an_erased_account_name_nobody(store: Store) -> None:
    """Metadata and clients are emptied, ids stay; other accounts' events and an administrator's client stay too."""
    work, log = store
    user, admin = UUID(int=1), UUID(int=2)
    client, digest = Client("192.0.2.1", "test"), {"address": "digest"}
    async with work() as unit:
        await unit.users.add(
            User(
                user,
                EmailAddress("ada@example.com", "ada@example.com"),
                email_verified=True,
                name=None,
                password=PasswordHash("scheme", 12, 1, "digest"),
                roles=(),
                created_at=EPOCH,
                status=UserStatus.DELETING,
                erase_at=EPOCH,
            )
        )
        for event in (
            AuditEvent("own", actor_id=user, subject_id=user, client=client, metadata={"a": 1}),
            AuditEvent("guessed", subject_id=user, client=client, metadata=digest),
            AuditEvent("mistyped", client=client, metadata=digest),
            AuditEvent("at_earlier_address", client=client, metadata={"address": "earlier"}),
            AuditEvent("by_admin", actor_id=admin, subject_id=user, client=client, metadata={"a": 1}),
            AuditEvent("to_other", actor_id=user, subject_id=admin, client=client, metadata={"a": 1}),
            AuditEvent("foreign", actor_id=admin, subject_id=admin, client=client, metadata={"address": "other"}),
        ):
            unit.audit.record(event)
    async with work() as unit:
        assert await unit.audit.erase(user, ["digest", "earlier"]) == 6
    kept = {str(record.event.action): record.event for record in await read(log)}
    assert {name: event.metadata for name, event in kept.items()} == {
        "own": {},
        "guessed": {},
        "mistyped": {},
        "at_earlier_address": {},
        "by_admin": {},
        "to_other": {"a": 1},
        "foreign": {"address": "other"},
    }
    assert {name for name, event in kept.items() if event.client == client} == {"by_admin", "foreign"}
    assert (kept["own"].actor_id, kept["own"].subject_id) == (user, user)


async def test_an_action_of_a_newer_release_is_returned_as_it_is(store: Store) -> None:
    """A reader that does not know an action or outcome returns its name, and goes on."""
    work, log = store
    async with work() as unit:
        unit.audit.record(AuditEvent("teleported", "unclear"))
        unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
    unknown, known = await read(log)
    assert (unknown.event.action, unknown.event.outcome) == ("teleported", "unclear")
    assert known.event.action is AuditAction.LOGIN_OK


async def test_old_events_are_purged_in_batches(store: Store, clock: FrozenClock) -> None:
    """The oldest events are deleted first, no more than the limit, and none from the given time or later."""
    work, log = store
    for _ in range(3):
        async with work() as unit:
            unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
        clock.advance(MOMENT)
    clock.advance(timedelta(days=400))
    purged = []
    for _ in range(2):
        async with work() as unit:
            purged.append(await unit.audit.purge(before=EPOCH + MOMENT, limit=2))
    assert purged == [1, 0]
    async with work() as unit:
        assert await unit.audit.purge(before=EPOCH + timedelta(days=1), limit=1) == 1
    assert [record.at for record in await read(log)] == [EPOCH + 2 * MOMENT]


@pytest.mark.parametrize("age", [timedelta(0), MIN_AUDIT_RETENTION - MOMENT])
async def test_recent_events_cannot_be_purged(database: Database, age: timedelta) -> None:
    """A caller of the purge cannot delete events of the last week, because the database uses its own clock."""
    clock = SystemClock()
    for work in (MemoryAuthUnitOfWork(clock), SqlAuthUnitOfWork(database, clock, uuid7)):
        async with work as unit:
            with pytest.raises((ValueError, DBAPIError), match="last 7 days cannot be purged"):
                await unit.audit.purge(before=clock.now() - age, limit=1)


async def test_a_purge_tolerates_a_clock_ahead_of_the_database(database: Database) -> None:
    """A process whose clock is ahead by less than the leeway can purge with the minimum retention."""
    clock = FrozenClock(datetime.now(UTC) - timedelta(days=8))
    async with SqlAuthUnitOfWork(database, clock, uuid7) as unit:
        unit.audit.record(AuditEvent(AuditAction.LOGIN_OK))
    clock.advance(timedelta(days=8) + LEEWAY / 2)
    policy = AuthPolicy(audit_retention=MIN_AUDIT_RETENTION)
    housekeeping = Housekeeping(lambda: SqlAuthUnitOfWork(database, clock, uuid7), clock, policy)
    await housekeeping.purge(Delivery(uuid7(), "auth.purge"))
    until = clock.now()
    assert await read(SqlAuditLog(database), since=until - timedelta(days=30), until=until) == []

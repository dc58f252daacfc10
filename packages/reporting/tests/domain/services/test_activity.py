"""The daily activity in memory: what is counted, and that it equals a recount after any history."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tequipy_auth import AuditAction, AuditEvent, AuditLog, AuditRecord, Outcome
from tequipy_auth.testing import MemoryAuditLog, MemoryAuthUnitOfWork
from tequipy_platform import Delivery, Invalid
from tequipy_platform.testing import EPOCH, FrozenClock
from tequipy_reporting import ActivityService, DailyActivity, Period
from tequipy_reporting.domain.activity import AGGREGATE_EVERY, CountedDay, days_of
from tequipy_reporting.testing import MemoryReportingUnitOfWork, RecordingReportMetrics

R = TypeVar("R")
DAY = timedelta(days=1)
TODAY = EPOCH.date()
RETENTION = 20 * DAY
DELIVERY = Delivery(UUID(int=1), "reporting.aggregate_activity")
ADA, BOB = UUID(int=1), UUID(int=2)


class HookedLog(MemoryAuditLog):
    """An audit log that calls a function before each count, as a process that writes at the same time."""

    def __init__(self, work: MemoryAuthUnitOfWork) -> None:
        super().__init__(work.audit)
        self.hook: Callable[[], None] = lambda: None

    async def counts(
        self,
        since: datetime,
        until: datetime,
        actions: Collection[AuditAction] | None = None,
        *,
        outcome: Outcome | None = None,
        accounts: bool = False,
    ) -> Mapping[date, int]:
        self.hook()
        return await super().counts(since, until, actions, outcome=outcome, accounts=accounts)


@pytest.fixture
def auth_work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
def log(auth_work: MemoryAuthUnitOfWork) -> HookedLog:
    return HookedLog(auth_work)


@pytest.fixture
def metrics() -> RecordingReportMetrics:
    return RecordingReportMetrics()


@pytest.fixture
def activity(
    work: MemoryReportingUnitOfWork, log: HookedLog, clock: FrozenClock, metrics: RecordingReportMetrics
) -> ActivityService:
    return make_service(work, log, clock, metrics)


def make_service(
    work: MemoryReportingUnitOfWork, log: AuditLog, clock: FrozenClock, metrics: RecordingReportMetrics
) -> ActivityService:
    return ActivityService(lambda: work, audit_log=log, audit_retention=RETENTION, clock=clock, metrics=metrics)


def record(auth_work: MemoryAuthUnitOfWork, at: datetime, event: AuditEvent) -> None:
    """Add an event of this time, as a process whose transaction has just been committed."""
    auth_work.audit.rows.append(AuditRecord(auth_work.new_id(), at, None, event))


async def recount(log: AuditLog, period: Period) -> Mapping[date, DailyActivity]:
    """Count a period from the stream of events, without the code that is tested."""
    numbers: dict[date, Counter[str]] = defaultdict(Counter)
    users: dict[date, set[UUID]] = defaultdict(set)
    async for each in log.stream(period.since, period.until):
        day, event = each.at.astimezone(UTC).date(), each.event
        if event.action != "registered" or event.outcome == "success":
            numbers[day][str(event.action)] += 1
        if event.action in {"login_ok", "token_refreshed"} and event.subject_id is not None:
            users[day].add(event.subject_id)
    return {
        day: DailyActivity(
            day,
            registrations=numbers[day]["registered"],
            logins=numbers[day]["login_ok"],
            failed_logins=numbers[day]["login_failed"],
            active_users=len(users[day]),
        )
        for day in days_of(period)
    }


async def test_the_meaning_of_each_number(activity: ActivityService, auth_work: MemoryAuthUnitOfWork) -> None:
    """Refused registrations and locked attempts do not count; an account is active once a day, by login or refresh."""
    for event in (
        AuditEvent(AuditAction.REGISTERED),
        AuditEvent(AuditAction.REGISTERED, Outcome.FAILURE),
        AuditEvent(AuditAction.VERIFIED, subject_id=ADA),
        AuditEvent(AuditAction.LOGIN_OK, subject_id=ADA),
        AuditEvent(AuditAction.LOGIN_OK, reason="reauthenticate", subject_id=ADA),
        AuditEvent(AuditAction.TOKEN_REFRESHED, subject_id=ADA),
        AuditEvent(AuditAction.TOKEN_REFRESHED, subject_id=BOB),
        AuditEvent(AuditAction.LOGIN_FAILED, Outcome.FAILURE, subject_id=UUID(int=3)),
        AuditEvent(AuditAction.LOGIN_LOCKED, Outcome.FAILURE, subject_id=UUID(int=3)),
        AuditEvent("teleported", subject_id=UUID(int=4)),
    ):
        record(auth_work, EPOCH, event)
    await activity.aggregate(DELIVERY)
    expected = DailyActivity(TODAY, registrations=1, logins=2, failed_logins=1, active_users=2)
    assert await activity.days(Period(TODAY - DAY, TODAY)) == [DailyActivity(TODAY - DAY), expected]


async def test_only_days_with_new_events_are_counted(
    activity: ActivityService, auth_work: MemoryAuthUnitOfWork, metrics: RecordingReportMetrics, clock: FrozenClock
) -> None:
    """A run without new events counts no day; a late event makes one day due, and the time of each run is exported."""
    for days in range(5):
        record(auth_work, EPOCH - days * DAY, AuditEvent(AuditAction.LOGIN_OK, subject_id=ADA))
    counted = []
    for late in (False, False, True):
        if late:
            record(auth_work, EPOCH - 3 * DAY, AuditEvent(AuditAction.LOGIN_OK, subject_id=BOB))
        clock.advance(AGGREGATE_EVERY)
        before = metrics.days_counted
        await activity.aggregate(DELIVERY)
        counted.append(metrics.days_counted - before)
        assert metrics.aggregated_at == clock.now()
    assert counted == [5, 0, 1]
    assert (await activity.days(Period(TODAY - 3 * DAY, TODAY - 3 * DAY)))[0].active_users == 2


@pytest.mark.parametrize("before", range(1, 8))
async def test_an_event_that_arrives_during_the_count_is_counted_by_the_next_run(
    activity: ActivityService, auth_work: MemoryAuthUnitOfWork, log: HookedLog, before: int
) -> None:
    """Whichever of the counts sees it first: the number of events was read before them, so the day stays due."""
    record(auth_work, EPOCH, AuditEvent(AuditAction.LOGIN_OK, subject_id=ADA))
    calls = 0

    def arrive() -> None:
        nonlocal calls
        calls += 1
        if calls == before:
            record(auth_work, EPOCH, AuditEvent(AuditAction.LOGIN_OK, subject_id=BOB))

    log.hook = arrive
    await activity.aggregate(DELIVERY)
    await activity.aggregate(DELIVERY)
    assert calls >= before
    period = Period(TODAY, TODAY)
    assert list(await activity.days(period)) == list((await recount(log, period)).values())


async def test_a_day_is_not_replaced_by_a_count_of_fewer_events(
    activity: ActivityService, auth_work: MemoryAuthUnitOfWork, work: MemoryReportingUnitOfWork
) -> None:
    """What the audit no longer holds stays counted, whoever counts again: the aggregation, or a rebuild."""
    record(auth_work, EPOCH, AuditEvent(AuditAction.LOGIN_OK, subject_id=ADA))
    kept = CountedDay(DailyActivity(TODAY, logins=7, active_users=3), events=9, counted_at=EPOCH)
    work.activity.rows[TODAY] = kept
    await activity.aggregate(DELIVERY)
    assert await activity.recount(TODAY) is False
    assert work.activity.rows[TODAY] == kept


async def test_a_rebuild_replaces_a_wrong_day(
    activity: ActivityService, auth_work: MemoryAuthUnitOfWork, work: MemoryReportingUnitOfWork
) -> None:
    """A day that was counted wrongly from all of its events is mended by counting it again."""
    record(auth_work, EPOCH, AuditEvent(AuditAction.LOGIN_OK, subject_id=ADA))
    work.activity.rows[TODAY] = CountedDay(DailyActivity(TODAY, logins=99), events=1, counted_at=EPOCH)
    await activity.aggregate(DELIVERY)
    assert (await activity.days(Period(TODAY, TODAY)))[0].logins == 99, "the aggregation has no reason to count it"
    assert await activity.recount(TODAY) is True
    assert await activity.days(Period(TODAY, TODAY)) == [DailyActivity(TODAY, logins=1, active_users=1)]


async def test_a_period_is_checked(activity: ActivityService) -> None:
    """Days in the future are refused."""
    with pytest.raises(Invalid):
        await activity.days(Period(TODAY, TODAY + DAY))


AGES = st.integers(0, 3) | st.integers(0, int(RETENTION / timedelta(hours=1)))
"""The hours between an event and its commit."""
EVENTS = st.builds(
    AuditEvent,
    st.sampled_from(["registered", "login_ok", "login_failed", "token_refreshed", "login_locked"]),
    st.sampled_from(["success", "failure"]),
    subject_id=st.none() | st.integers(1, 3).map(lambda n: UUID(int=n)),
)


class Histories(RuleBasedStateMachine):
    """Events on time and late, some during a count; aggregation, recounts and purges of the audit; time passes."""

    @initialize()
    def begin(self) -> None:
        self.clock = FrozenClock()
        self.auth_work = MemoryAuthUnitOfWork(self.clock)
        self.log = HookedLog(self.auth_work)
        self.work = MemoryReportingUnitOfWork(self.clock)
        self.service = make_service(self.work, self.log, self.clock, RecordingReportMetrics())
        self.kept: dict[date, CountedDay] = {}
        self.purged_before = EPOCH - 1000 * DAY

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        return asyncio.run(coroutine)

    @rule(event=EVENTS, hours_ago=AGES)
    def an_event_is_committed(self, event: AuditEvent, hours_ago: int) -> None:
        record(self.auth_work, self.clock.now() - timedelta(hours=hours_ago), event)

    @rule(event=EVENTS, hours_ago=AGES, before=st.integers(1, 8))
    def an_event_is_committed_during_a_run(self, event: AuditEvent, hours_ago: int, before: int) -> None:
        calls = 0

        def arrive() -> None:
            nonlocal calls
            calls += 1
            if calls == before:
                self.an_event_is_committed(event, hours_ago)

        self.log.hook = arrive
        self.aggregate()
        self.log.hook = lambda: None

    @rule(hours=st.integers(1, 72))
    def time_passes(self, hours: int) -> None:
        self.clock.advance(timedelta(hours=hours))

    @rule()
    def aggregate(self) -> None:
        self.run(self.service.aggregate(DELIVERY))

    @rule(day=st.integers(0, 19))
    def a_day_is_recounted(self, day: int) -> None:
        days = days_of(self.service.countable())
        self.run(self.service.recount(days[day % len(days)]))

    @rule(shorter=st.sampled_from([0, 0, 0, 9]))
    def the_audit_is_purged(self, shorter: int) -> None:
        """Also by a process whose retention is shorter for a while."""
        before = self.clock.now() - RETENTION + timedelta(days=shorter)
        self.run(self.auth_work.audit.purge(before=before, limit=1000))
        self.purged_before = max(before, self.purged_before)

    @rule()
    def the_days_equal_a_recount(self) -> None:
        """After enough runs without new events, each day that the audit holds as a whole equals a recount."""
        for _ in range(3):
            self.aggregate()
            self.clock.advance(AGGREGATE_EVERY)
        period = self.service.countable()
        expected = self.run(recount(self.log, period))
        whole = {day for day in expected if datetime.combine(day, time(), UTC) >= self.purged_before}
        days = {each.day: each for each in self.run(self.service.days(period)) if each.day in whole}
        assert days == {day: expected[day] for day in whole}

    @precondition(lambda self: hasattr(self, "kept"))
    @invariant()
    def what_was_counted_stays_counted(self) -> None:
        """The events of a day never become fewer, and a day before the audit's retention does not change."""
        first = self.service.countable().first_day
        for day, before in self.kept.items():
            after = self.work.activity.rows[day]
            assert after.events >= before.events
            assert after == before or day >= first
        self.kept = dict(self.work.activity.rows)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

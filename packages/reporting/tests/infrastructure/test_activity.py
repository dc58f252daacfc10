"""The daily activity on PostgreSQL, beside writers: it equals a recount of the audit."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from tequipy_auth import CACHE_POLICIES, AuditLog, Auth, AuthPolicy
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Delivery, SystemClock
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.testing import MemoryStorage
from tequipy_reporting import DailyActivity, Period, Reporting
from tequipy_reporting.wiring import ReportingSettings, build_reporting

DAY = timedelta(days=1)
RETENTION = 14 * DAY  # each run compares all of it
DELIVERY = Delivery(UUID(int=1), "reporting.aggregate_activity")
ACTIONS = ["registered", "login_ok", "login_failed", "login_locked", "token_refreshed", "logout"]
INSERT = text("""
    insert into auth.audit_events (id, at, subject_id, action, outcome, metadata)
    values (:id, :at, :subject_id, :action, :outcome, '{}')
""")
# The times are those of the database, which are those of this machine.
FILL = text("""
    insert into auth.audit_events (id, at, subject_id, action, outcome, metadata)
    select gen_random_uuid(), cast(:midnight as timestamptz) + make_interval(secs => n * 86400.0 / 1000000),
        md5((n::bigint * 7919 % 100000)::text)::uuid, (cast(:actions as text[]))[1 + n % 6],
        case when n % 11 = 0 then 'failure' else 'success' end, '{}'
    from generate_series(cast(:first as int), cast(:last as int)) as n
""")
WRITERS, EVENTS = 6, 60


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with build_database(DatabaseSettings(url=SecretStr(database_url), pool_size=10)) as database:
        yield database


@pytest.fixture
def log(database: Database) -> AuditLog:
    return make_auth(database).audit_log


def make_auth(database: Database) -> Auth:
    return build_auth(
        AuthSettings(policy=AuthPolicy(audit_retention=RETENTION)),
        environment="test",
        public_url="https://app.example.com",
        database=database,
        cache=MemoryCacheManager(CACHE_POLICIES),
    )


@pytest.fixture
def reporting(database: Database) -> Reporting:
    return make_reporting(database)


def make_reporting(database: Database) -> Reporting:
    return build_reporting(
        ReportingSettings(),
        public_url="https://app.example.com",
        database=database,
        auth=make_auth(database),
        storage=MemoryStorage(SystemClock()),
    )


async def recount(log: AuditLog, period: Period) -> list[DailyActivity]:
    """Count a period from the stream of events, without the code that is tested."""
    numbers: dict[date, Counter[str]] = defaultdict(Counter)
    users: dict[date, set[UUID | None]] = defaultdict(set)
    async for each in log.stream(period.since, period.until):
        day, event = each.at.astimezone(UTC).date(), each.event
        if event.action != "registered" or event.outcome == "success":
            numbers[day][str(event.action)] += 1
        if event.action in {"login_ok", "token_refreshed"}:
            users[day].add(event.subject_id)
    days = [period.first_day + n * DAY for n in range((period.last_day - period.first_day).days + 1)]
    return [
        DailyActivity(
            day,
            numbers[day]["registered"],
            numbers[day]["login_ok"],
            numbers[day]["login_failed"],
            len(users[day] - {None}),
        )
        for day in days
    ]


def differences(found: list[DailyActivity], expected: list[DailyActivity]) -> int:
    assert len(found) == len(expected)
    return sum(one != other for one, other in zip(found, expected, strict=True))


async def write(database: Database, events: int, seed: int) -> None:
    """Commit events of the last ten days one by one, some of them long after the statement that inserted them."""
    randomness = random.Random(seed)  # noqa: S311 -- no secret
    for _ in range(events):
        values = {
            "id": uuid7(),
            "at": datetime.now(UTC) - timedelta(hours=randomness.choice([0, 0, randomness.uniform(0, 240)])),
            "subject_id": randomness.choice([None, *(UUID(int=n) for n in range(1, 6))]),
            "action": randomness.choice(ACTIONS),
            "outcome": randomness.choice(["success", "success", "failure"]),
        }
        async with database.sessions() as session:
            await session.execute(INSERT, values)
            for _ in range(randomness.choice([0, 0, 20])):
                await asyncio.sleep(0)
            await session.commit()


async def test_the_days_equal_a_recount_after_concurrent_writes_late_events_and_a_rebuild(
    database: Database, log: AuditLog, reporting: Reporting
) -> None:
    """Two aggregations and a rebuild beside six writers, whose events are up to ten days late: no difference."""
    today = datetime.now(UTC).date()
    period = Period(today - 11 * DAY, today)
    ended = asyncio.Event()
    runs = 0

    async def aggregate(service: Reporting) -> None:
        nonlocal runs
        while not ended.is_set():
            await service.activity.aggregate(DELIVERY)
            runs += 1

    async def rebuild() -> None:
        while not ended.is_set():
            for day in [today - n * DAY for n in range(11, -1, -1)]:
                await reporting.activity.recount(day)

    running = (aggregate(reporting), aggregate(make_reporting(database)), rebuild())
    others = [asyncio.create_task(each) for each in running]
    await asyncio.gather(*(write(database, EVENTS, seed) for seed in range(WRITERS)))
    ended.set()
    await asyncio.gather(*others)
    await write(database, 20, WRITERS)  # late events after all of it
    stale = differences(list(await reporting.activity.days(period)), await recount(log, period))
    await reporting.activity.aggregate(DELIVERY)
    left = differences(list(await reporting.activity.days(period)), await recount(log, period))
    print(f"\n{WRITERS * EVENTS} events beside {runs} runs: {stale} days differ before the last run, {left} after it")
    assert runs > 1
    assert reporting.activity.countable().first_day < period.first_day
    assert left == 0


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_a_day_of_a_million_events_is_aggregated(database: Database, log: AuditLog, reporting: Reporting) -> None:
    """It takes less than a minute, and a second run, which only compares, a fraction of that; no difference."""
    yesterday = datetime.now(UTC).date() - DAY
    midnight = Period(yesterday, yesterday).since
    loop = asyncio.get_running_loop()
    for first in range(0, 1_000_000, 50_000):
        values = {"midnight": midnight, "actions": ACTIONS, "first": first, "last": first + 49_999}
        async with database.sessions() as session:
            await session.execute(FILL, values)
            await session.commit()
    seconds = []
    for _ in range(2):
        began = loop.time()
        await reporting.activity.aggregate(DELIVERY)
        seconds.append(loop.time() - began)
    period = Period(yesterday, yesterday)
    found, expected = list(await reporting.activity.days(period)), await recount(log, period)
    print(f"\n1,000,000 events in a day: aggregated in {seconds[0]:.1f} s, compared in {seconds[1]:.1f} s; {found[0]}")
    assert differences(found, expected) == 0
    assert seconds[0] < 60
    assert seconds[1] < seconds[0]

"""Gauges of outbox and queues: what they show for messages in every state."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, text

from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging import build_unpublished_messages
from tequipy_platform.messaging.metrics import OutboxMetrics, _measurements
from tequipy_platform.messaging.models import OutboxRow, ScheduleRow

QUEUES = {"test.mail": "email", "test.note": "default", "test.report": "reports"}
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
Add = Callable[..., Awaitable[None]]


@pytest.fixture
def add(database: Database) -> Add:
    async def insert_row(state: str, *, times: int = 1, **columns: Any) -> None:
        now = datetime.now(UTC)
        ages = {
            f"{name}_at": now - columns.pop(name) for name in ("created", "published", "settled") if name in columns
        }
        due = {"not_before": now - columns.pop("due")} if "due" in columns else {}
        row = {"payload": {}, "state": state, "created_at": now} | ages | due | columns
        async with database.sessions.begin() as session:
            await session.execute(insert(OutboxRow), [row | {"id": uuid7()} for _ in range(times)])

    return insert_row


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(database: Database, registry: CollectorRegistry) -> OutboxMetrics:
    return OutboxMetrics(database, QUEUES, registry)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return every sample that is not 0, ages in whole minutes, by name and queue."""
    found = {}
    for sample in (sample for family in registry.collect() for sample in family.samples):
        value = sample.value // 60 if sample.name.endswith("age_seconds") else sample.value
        if value:
            found[" ".join([sample.name, *sample.labels.values()])] = value
    return found


async def test_without_messages_every_gauge_is_zero(metrics: OutboxMetrics, registry: CollectorRegistry) -> None:
    """Before and after the first measurement there is a 0 for each queue of the catalogue."""
    for _ in range(2):
        assert samples(registry) == {}
        for name in ("queue_depth", "queue_oldest_age_seconds", "messages_unsettled"):
            for queue in ("default", "email", "reports"):
                assert registry.get_sample_value(name, {"queue": queue}) == 0
        await metrics.measure()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"state": "pending", "task": "test.mail", "due": 7 * MINUTE},
            {"outbox_pending": 5, "outbox_oldest_age_seconds": 7},
        ),
        ({"state": "pending", "task": "test.mail", "due": -7 * MINUTE}, {}),
        (
            {"state": "pending", "event": "test.noted", "due": 7 * MINUTE},
            {"outbox_pending": 5, "outbox_oldest_age_seconds": 7},
        ),
        (
            {"state": "published", "task": "test.mail", "queue": "email", "created": HOUR, "published": 9 * MINUTE},
            {
                "queue_depth email": 5,
                "queue_oldest_age_seconds email": 9,
                "messages_unsettled email": 5,
                "messages_unsettled_oldest_age_seconds email": 60,
            },
        ),
        (
            {"state": "running", "task": "test.note", "queue": "default", "created": 3 * MINUTE, "published": MINUTE},
            {"messages_unsettled default": 5, "messages_unsettled_oldest_age_seconds default": 3},
        ),
        (
            {"state": "failed", "task": "test.mail", "queue": "email", "created": HOUR, "due": -MINUTE},
            {"messages_unsettled email": 5, "messages_unsettled_oldest_age_seconds email": 60},
        ),
        (
            {"state": "failed", "task": "test.mail", "created": HOUR, "due": 2 * MINUTE},
            {
                "outbox_pending": 5,
                "outbox_oldest_age_seconds": 2,
                "messages_unsettled email": 5,
                "messages_unsettled_oldest_age_seconds email": 60,
            },
        ),
        ({"state": "dead", "task": "test.mail", "queue": "email", "settled": MINUTE}, {"dead_letters": 5}),
        ({"state": "dead", "event": "test.noted", "settled": MINUTE}, {"dead_letters": 5}),
        ({"state": "done", "task": "test.mail", "queue": "email", "settled": MINUTE}, {}),
        ({"state": "discarded", "task": "test.mail", "queue": "email", "settled": MINUTE}, {}),
    ],
    ids=[
        "pending",
        "delayed",
        "event",
        "published",
        "running",
        "failed",
        "failed and due",
        "dead",
        "dead event",
        "done",
        "discarded",
    ],
)
async def test_messages_in_each_state_are_measured(
    add: Add, metrics: OutboxMetrics, registry: CollectorRegistry, row: dict[str, Any], expected: dict[str, float]
) -> None:
    """Five messages in one state show in the gauges for that state, under the queue of their task, and in no other."""
    await add(times=5, **row)
    await metrics.measure()
    assert samples(registry) == expected


async def test_five_mails_that_wait_for_a_dead_fleet_show(
    add: Add, metrics: OutboxMetrics, registry: CollectorRegistry
) -> None:
    """Nothing is pending in the outbox, but depth, unsettled messages and both ages show that nobody takes them."""
    await add("published", times=5, task="test.mail", queue="email", created=2 * HOUR, published=HOUR)
    await metrics.measure()
    assert registry.get_sample_value("outbox_pending") == 0
    for name in ("queue_depth", "messages_unsettled"):
        assert registry.get_sample_value(name, {"queue": "email"}) == 5
    for name in ("queue_oldest_age_seconds", "messages_unsettled_oldest_age_seconds"):
        assert (registry.get_sample_value(name, {"queue": "email"}) or 0) >= 3600


async def test_states_of_one_queue_are_added_up(add: Add, metrics: OutboxMetrics, registry: CollectorRegistry) -> None:
    """Counts of several states and tasks of a queue are summed, and the age is that of the oldest message."""
    await add("published", times=2, task="test.mail", queue="email", created=5 * MINUTE, published=MINUTE)
    await add("running", times=3, task="test.other", queue="email", created=8 * MINUTE)
    await add("failed", times=4, task="test.mail", created=6 * MINUTE, due=-MINUTE)
    await add("published", task="test.unknown", created=2 * MINUTE, published=MINUTE)
    await metrics.measure()
    assert samples(registry) == {
        "queue_depth email": 2,
        "queue_depth default": 1,
        "queue_oldest_age_seconds email": 1,
        "queue_oldest_age_seconds default": 1,
        "messages_unsettled email": 9,
        "messages_unsettled default": 1,
        "messages_unsettled_oldest_age_seconds email": 8,
        "messages_unsettled_oldest_age_seconds default": 2,
    }


async def test_a_queue_that_left_the_catalogue_returns_to_zero(
    database: Database, add: Add, metrics: OutboxMetrics, registry: CollectorRegistry
) -> None:
    """When the last message of a queue that the catalogue does not know is done, its gauges are 0 again."""
    await add("published", task="test.mail", queue="former", created=MINUTE, published=MINUTE)
    await metrics.measure()
    assert registry.get_sample_value("messages_unsettled", {"queue": "former"}) == 1
    async with database.sessions.begin() as session:
        await session.execute(text("update platform.outbox set state = 'done', settled_at = now()"))
    await metrics.measure()
    assert samples(registry) == {}


async def test_no_age_is_negative(add: Add, metrics: OutboxMetrics, registry: CollectorRegistry) -> None:
    """A message from a process whose clock is ahead of the database's has the age 0."""
    await add("published", task="test.mail", queue="email", created=-MINUTE, published=-MINUTE)
    await metrics.measure()
    for name in ("queue_oldest_age_seconds", "messages_unsettled_oldest_age_seconds"):
        age = registry.get_sample_value(name, {"queue": "email"})
        assert age is not None
        assert 0 <= age < 60


async def test_the_last_tick_is_that_of_any_scheduler(
    database: Database, metrics: OutboxMetrics, registry: CollectorRegistry
) -> None:
    """The gauge is the latest time at which a scheduler looked at a schedule; 0 if none ever did."""
    await metrics.measure()
    assert registry.get_sample_value("scheduler_last_tick_timestamp") == 0
    latest = datetime.now(UTC).replace(microsecond=0)
    async with database.sessions.begin() as session:
        for task, checked_at in (("a", latest - MINUTE), ("b", latest), ("c", latest - 2 * MINUTE)):
            session.add(ScheduleRow(task=task, last_occurrence=latest, checked_at=checked_at))
    await metrics.measure()
    assert registry.get_sample_value("scheduler_last_tick_timestamp") == latest.timestamp()


async def test_a_measurement_reads_no_settled_row(database: Database) -> None:
    """Each query uses the index of its states, so its cost does not depend on the number of settled messages."""
    fill = """
        insert into platform.outbox (id, task, payload, created_at, queue, state, settled_at)
        select gen_random_uuid(), 'test.note', '{}', now(), 'default', 'done', now() from generate_series(1, 20000)
    """
    async with database.sessions.begin() as session:
        await session.execute(text(fill))
        await session.execute(text("analyze platform.outbox"))
        for query in _measurements():
            words = query.compile(dialect=database.engine.dialect, compile_kwargs={"literal_binds": True})
            plan = "\n".join(await session.scalars(text(f"explain {words}")))
            assert "Seq Scan" not in plan, plan


async def test_a_measurement_that_fails_is_logged_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A relay that cannot read the schedules says so: otherwise nobody would see that its gauges are old."""
    monkeypatch.setattr("tequipy_platform.messaging.unpublished._MEASURE_SECONDS", 0.02)
    measured = 0

    async def measure(_: OutboxMetrics) -> None:
        nonlocal measured
        measured += 1
        raise PermissionError("permission denied for table schedules")

    monkeypatch.setattr(OutboxMetrics, "measure", measure)
    async with asyncio.timeout(10), build_unpublished_messages(database, redelivery=HOUR):
        while measured < 3:
            await asyncio.sleep(0.01)
    [record] = [record for record in caplog.records if record.message == "outbox_measurement_failed"]
    assert "schedules" in getattr(record, "error", "")

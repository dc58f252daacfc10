"""Gauges of outbox and queues, measured from rows alone, so that they need no access to the broker."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import ColumnElement, Select, and_, func, select, union_all

from tequipy_platform._messages import MessageState
from tequipy_platform._tasks import DEFAULT_QUEUE
from tequipy_platform.database import Database
from tequipy_platform.messaging.models import OutboxRow, ScheduleRow, has_state

_MAX_CLOCK_STEP: Final = timedelta(minutes=1)
_WAITING: Final = (MessageState.PENDING, MessageState.FAILED)


class OutboxMetrics:
    """Counts and ages of messages that are not settled, by queue, and the number of dead letters.

    `queues` maps the names of tasks to their queues. Every relay measures the same rows, so a dashboard takes the
    maximum over relays.
    """

    def __init__(self, database: Database, queues: Mapping[str, str], registry: CollectorRegistry | None) -> None:
        self._database = database
        self._queues = queues
        self._pending = Gauge("outbox_pending", "Rows that are due and not yet published.", registry=registry)
        self._pending_age = Gauge(
            "outbox_oldest_age_seconds", "Time that the oldest of them is due.", registry=registry
        )
        self._depth = Gauge(
            "queue_depth", "Messages that are published and not yet received.", ["queue"], registry=registry
        )
        self._depth_age = Gauge(
            "queue_oldest_age_seconds", "Time since the oldest of them was published.", ["queue"], registry=registry
        )
        self._unsettled = Gauge(
            "messages_unsettled", "Messages that were published and are not done.", ["queue"], registry=registry
        )
        self._unsettled_age = Gauge(
            "messages_unsettled_oldest_age_seconds", "Age of the oldest of them.", ["queue"], registry=registry
        )
        self._dead = Gauge("dead_letters", "Messages that a person has to retry or discard.", registry=registry)
        self._tick = Gauge(
            "scheduler_last_tick_timestamp",
            "Unix time at which a scheduler last looked at its schedule.",
            registry=registry,
        )
        self._known = {DEFAULT_QUEUE, *queues.values()}
        """All queues that ever had a value, so that one that left the catalogue returns to 0."""
        for queue in self._known:
            for gauge in (self._depth, self._depth_age, self._unsettled, self._unsettled_age):
                gauge.labels(queue).set(0)

    async def measure(self) -> None:
        """Read the rows, and set every gauge."""
        async with self._database.sessions() as session:
            groups: Sequence[Any] = (await session.execute(union_all(*_measurements()))).all()
            dead = select(func.count()).where(has_state(MessageState.DEAD))
            self._dead.set(await session.scalar(dead) or 0)
            # A time in the future was written while the clock was ahead: it would hide that no scheduler runs.
            ticks = select(func.extract("epoch", func.max(ScheduleRow.checked_at)))
            ticks = ticks.where(ScheduleRow.checked_at <= func.now() + _MAX_CLOCK_STEP)
            self._tick.set(await session.scalar(ticks) or 0)
        depth, unsettled, due = _Sums(), _Sums(), _Sums()
        for state, queue, task, count, age, due_count, due_age, published_age in groups:
            due.add("", due_count, due_age)
            if state == MessageState.PENDING:
                continue
            name = queue or self._queues.get(task, DEFAULT_QUEUE)
            unsettled.add(name, count, age)
            if state == MessageState.PUBLISHED:
                depth.add(name, count, published_age)
        self._pending.set(due.counts.get("", 0))
        self._pending_age.set_function(_growing_age(due.ages.get("", 0)))
        self._known.update(unsettled.counts)
        for queue in self._known:
            self._depth.labels(queue).set(depth.counts.get(queue, 0))
            self._depth_age.labels(queue).set_function(_growing_age(depth.ages.get(queue, 0)))
            self._unsettled.labels(queue).set(unsettled.counts.get(queue, 0))
            self._unsettled_age.labels(queue).set_function(_growing_age(unsettled.ages.get(queue, 0)))


class _Sums:
    """Sums of counts, and the highest age, by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.ages: dict[str, float] = {}

    def add(self, name: str, count: int, age: float) -> None:
        self.counts[name] = self.counts.get(name, 0) + count
        self.ages[name] = max(self.ages.get(name, 0), float(age))


def _measurements() -> list[Select[*tuple[Any, ...]]]:
    """Return queries whose conditions are those of the indexes, so that they read unsettled rows only, and each once.

    Columns: state, queue, task, count, age, count of due rows, age of due rows, age of the publication.
    """
    due = and_(has_state(*_WAITING), OutboxRow.not_before <= func.now())

    def age(since: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(func.extract("epoch", func.now() - since), 0)

    key = (OutboxRow.state, OutboxRow.queue, OutboxRow.task)
    measured = (
        func.count(),
        age(func.min(OutboxRow.created_at)),
        func.count().filter(due),
        age(func.min(OutboxRow.not_before).filter(due)),
        age(func.min(OutboxRow.published_at)),
    )
    waiting = and_(OutboxRow.task.is_not(None), has_state(*_WAITING))
    events = and_(OutboxRow.event.is_not(None), has_state(MessageState.PENDING))
    published, running = has_state(MessageState.PUBLISHED), has_state(MessageState.RUNNING)
    return [
        select(*key, *measured).where(condition).group_by(*key) for condition in (waiting, events, published, running)
    ]


def _growing_age(seconds: float) -> Callable[[], float]:
    """Return a function for an age that is `seconds` now and grows with time; an age of 0 stays 0."""
    since = time.monotonic() - float(seconds)
    return lambda: time.monotonic() - since if seconds else 0.0

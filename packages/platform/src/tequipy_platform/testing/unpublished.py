"""The outbox in memory, as the relay reads it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from tequipy_platform._messages import Batch, MessageState, UnpublishedMessage, UnpublishedMessages
from tequipy_platform._tasks import DEFAULT_QUEUE
from tequipy_platform.database.ids import derived_id
from tequipy_platform.messaging.message_log import MAX_ERROR_LENGTH, PATIENCE
from tequipy_platform.messaging.unpublished import is_newer
from tequipy_platform.testing.messages import MemoryMessage, MemoryMessages, wait_or_give_up

_MAX_CLOCK_STEP: Final = timedelta(minutes=1)
_MAX_DOUBLINGS: Final = 6
_HELD_FOR: Final = timedelta(seconds=10)
_PROBE_AFTER: Final = timedelta(seconds=30)

logger = logging.getLogger(__name__)


class MemoryUnpublishedMessages(UnpublishedMessages):
    """The relay's view of `MemoryMessages`, by their clock."""

    def __init__(
        self,
        messages: MemoryMessages,
        *,
        redelivery: timedelta,
        queues: Mapping[str, str] | None = None,
        app_version: str | None = None,
    ) -> None:
        self._messages = messages
        self._redelivery = redelivery
        self._queues = queues or {}
        self._app_version = app_version

    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn events into messages."""
        now = self._messages.clock.now()
        events = self._messages.lock(
            lambda row: _is_event(row) and row.not_before <= now,
            lambda row: (row.waiting_since is not None, row.id),
            limit,
        )
        for event in events:
            self._fan_out(event, subscribers.get(event.event or "", ()), now)
        self._messages.unlock(events)
        return len(events)

    def _fan_out(self, event: MemoryMessage, tasks: Sequence[str], now: datetime) -> None:
        for task in tasks:
            self._add_message(event, task, now)
        newer = is_newer(event.producer_version, than=self._app_version)
        fields = {"message_id": str(event.id), "event_name": event.event}
        if newer and now - (event.waiting_since or now) < PATIENCE:
            event.waiting_since, event.not_before = event.waiting_since or now, now + _HELD_FOR
            event.error = "waits for a newer relay, which may know further subscribers"
        elif newer and not tasks:
            event.state, event.settled_at = MessageState.DEAD, now
            event.error = "no relay knows a subscriber of this event"
            logger.error("event_dead_lettered", extra=fields)
        else:
            event.state, event.published_at, event.settled_at = MessageState.DONE, now, now
            if newer:
                logger.warning("event_not_seen_by_newer_relay", extra=fields)

    def _add_message(self, event: MemoryMessage, task: str, now: datetime) -> None:
        row = MemoryMessage(
            derived_id(event.id, task),
            event.payload,
            task=task,
            created_at=event.created_at,
            not_before=now,
            schema_version=event.schema_version,
            producer_version=event.producer_version,
            correlation_id=event.correlation_id,
            traceparent=event.traceparent,
        )
        self._messages.rows.setdefault(row.id, row)

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        """Lock due messages for the duration of the block."""
        now = self._messages.clock.now()
        rows = self._messages.lock(lambda row: _is_due(row, now), lambda row: (row.not_before, row.id), limit)
        rows += self._missed(now, limit - len(rows))
        try:
            batch = Batch(
                [
                    UnpublishedMessage(
                        row.id, row.task or "", row.correlation_id, row.traceparent, row.producer_version
                    )
                    for row in rows
                ]
            )
            yield batch
            for row in rows:
                self._store(row, batch, now)
        finally:
            self._messages.unlock(rows)

    def _missed(self, now: datetime, limit: int) -> list[MemoryMessage]:
        """Lock messages that the broker or their worker has lost."""
        rows = self._messages.lock(
            lambda row: row.state == MessageState.RUNNING and _is_late(row, now),
            lambda row: (row.redeliver_at, row.id),
            limit,
        )
        late = [
            row for row in self._messages.rows.values() if row.state == MessageState.PUBLISHED and _is_late(row, now)
        ]
        for queue in sorted({row.queue for row in late}, key=str):
            of_queue = {row.id for row in late if row.queue == queue}
            rows += self._missed_of_queue(queue, of_queue, now, limit - len(rows))
        return rows

    def _missed_of_queue(self, queue: str | None, late: set[UUID], now: datetime, limit: int) -> list[MemoryMessage]:
        all_of_queue = [row for row in self._messages.rows.values() if row.queue == queue and row.published_at]
        received = max(
            (row.published_at for row in all_of_queue if _is_received(row, now) and row.published_at), default=None
        )
        found = self._messages.lock(
            lambda row: (
                row.id in late and received is not None and row.published_at is not None and row.published_at < received
            ),
            lambda row: (row.published_at, row.id),
            limit,
        )
        if found:
            return found
        newest = max(
            row.published_at for row in all_of_queue if row.state == MessageState.PUBLISHED and row.published_at
        )
        if newest >= now - min(_PROBE_AFTER, self._redelivery):
            return []
        return self._messages.lock(lambda row: row.id in late, lambda row: (row.published_at, row.id), min(limit, 1))

    def _store(self, row: MemoryMessage, batch: Batch, now: datetime) -> None:
        """Store the result of one message."""
        if row.id in batch.published:
            row.state = MessageState.RUNNING if row.state == MessageState.RUNNING else MessageState.PUBLISHED
            row.queue = self._queues.get(row.task or "", DEFAULT_QUEUE)
            row.published_at = now
            row.redeliver_at = now + self._redelivery * 2 ** min(row.publications, _MAX_DOUBLINGS)
            row.publications += 1
        elif row.id in batch.refused:
            error, running = batch.refused[row.id], row.state == MessageState.RUNNING
            wait_or_give_up(row, now, error[:MAX_ERROR_LENGTH], patience=PATIENCE)
            if row.state == MessageState.DEAD:
                logger.error("message_dead_lettered", extra={"message_id": str(row.id), "error": error})
            elif running:
                row.state, row.redeliver_at = MessageState.RUNNING, row.not_before

    async def wait(self, at_most: float) -> None:
        """Return after `at_most` seconds."""
        await asyncio.sleep(at_most)

    def reset_future_times(self) -> None:
        """Make due at once what was postponed while the clock was ahead."""
        now = self._messages.clock.now()
        ahead = now + _MAX_CLOCK_STEP
        for row in self._messages.rows.values():
            if _was_postponed(row, ahead):
                row.not_before = now
            elif row.state == MessageState.PUBLISHED and row.published_at is not None and row.published_at > ahead:
                row.state, row.not_before, row.published_at = MessageState.PENDING, now, None
            elif row.state == MessageState.RUNNING and min(row.redeliver_at or now, row.started_at or now) > ahead:
                row.redeliver_at, row.started_at, row.published_at = now + self._redelivery, now, now
            else:
                continue
            row.failing_since = min(row.failing_since, now) if row.failing_since else None
            row.waiting_since = min(row.waiting_since, now) if row.waiting_since else None


def _is_event(row: MemoryMessage) -> bool:
    return row.event is not None and row.state == MessageState.PENDING


def _is_due(row: MemoryMessage, now: datetime) -> bool:
    waits = row.state in {MessageState.PENDING, MessageState.FAILED}
    return row.task is not None and waits and row.not_before <= now


def _is_late(row: MemoryMessage, now: datetime) -> bool:
    return row.redeliver_at is not None and row.redeliver_at <= now


def _is_received(row: MemoryMessage, now: datetime) -> bool:
    """Return whether the last publication of a message was received."""
    if row.started_at is None or row.published_at is None:
        return False
    return row.published_at <= row.started_at and row.published_at <= now


def _was_postponed(row: MemoryMessage, ahead: datetime) -> bool:
    if row.not_before <= ahead:
        return False
    if _is_event(row):
        return True
    times = [time for time in (row.failing_since, row.started_at) if time is not None]
    postponed = row.waiting_since is not None or any(time > ahead for time in times)
    return row.task is not None and row.state == MessageState.FAILED and postponed

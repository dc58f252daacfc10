"""The message log in memory."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from tequipy_platform._errors import NotFound
from tequipy_platform._messages import Attempt, MessageLog, MessageState
from tequipy_platform.messaging.message_log import DIED, FOREIGN_TASK, MAX_ERROR_LENGTH, PATIENCE
from tequipy_platform.testing.messages import FailedAttempt, MemoryMessage, MemoryMessages, wait_or_give_up

_WAITING: Final = (MessageState.PENDING, MessageState.FAILED)


class MemoryMessageLog(MessageLog):
    """A message log over `MemoryMessages`, by their clock."""

    def __init__(self, messages: MemoryMessages, *, redelivery: timedelta = timedelta(minutes=10)) -> None:
        self._messages = messages
        self._redelivery = redelivery

    async def begin(
        self, message_id: UUID, worker: str, *, redelivered: bool = False, repeated: bool = False
    ) -> Attempt | None:
        """Begin an attempt, unless the message is settled, runs, or is not due."""
        row, now = await self._messages.unlocked(message_id), self._messages.clock.now()
        if row is None or row.task is None:
            raise NotFound
        after_death = row.state == MessageState.RUNNING and not (repeated and row.worker == worker)
        if after_death:
            if not redelivered and not _has_died(row, now):
                return None
            self._count_death(row, now)
        elif row.state not in {MessageState.PUBLISHED, MessageState.RUNNING} and (
            row.state not in _WAITING or row.not_before > now
        ):
            return None
        row.state, row.attempts, row.started_at, row.worker = MessageState.RUNNING, row.attempts + 1, now, worker
        row.published_at = row.published_at or now
        row.redeliver_at = now + self._redelivery
        return Attempt(
            message_id=message_id,
            number=row.attempts,
            task=row.task,
            payload=row.payload,
            schema_version=row.schema_version,
            correlation_id=row.correlation_id,
            traceparent=row.traceparent,
            failed_attempts=row.failed_attempts,
            deaths=row.deaths,
            failing_for=now - row.failing_since if row.failing_since else None,
            after_death=after_death,
        )

    def _count_death(self, row: MemoryMessage, now: datetime) -> None:
        row.failures.append(FailedAttempt(row.attempts, row.started_at, None, row.worker, DIED))
        row.deaths += 1
        row.failed_attempts += 1
        row.failing_since = row.failing_since or now
        row.error = DIED

    async def succeed(self, attempt: Attempt) -> None:
        """Record the success, whatever other attempts have recorded."""
        row = await self._messages.unlocked(attempt.message_id)
        if row is not None and row.state != MessageState.DONE:
            row.state, row.settled_at, row.error = MessageState.DONE, self._messages.clock.now(), None

    async def fail(self, attempt: Attempt, error: str, *, retry_in: timedelta | None) -> None:
        """Store the failed attempt, and when the next one is due."""
        row, now = await self._current(attempt), self._messages.clock.now()
        if row is None:
            return
        text = error[:MAX_ERROR_LENGTH]
        row.failures.append(FailedAttempt(row.attempts, row.started_at, now, row.worker, text))
        row.failed_attempts += 1
        row.failing_since = row.failing_since or now
        row.error = text
        if retry_in is None:
            row.state, row.settled_at, row.waiting_since = MessageState.DEAD, now, None
        else:
            _wait(row, now + retry_in)

    async def postpone(self, attempt: Attempt, wait: timedelta) -> None:
        """Store when the next attempt is due."""
        row = await self._current(attempt)
        if row is not None:
            _wait(row, self._messages.clock.now() + wait)

    async def wait_for_release(self, attempt: Attempt, reason: str) -> bool:
        """Make the message due again later."""
        row = await self._current(attempt)
        if row is not None:
            wait_or_give_up(row, self._messages.clock.now(), reason, patience=PATIENCE)
        stored = self._messages.rows.get(attempt.message_id)
        return stored is None or stored.state != MessageState.DEAD

    async def hand_back(self, attempt: Attempt) -> None:
        """Give the message the state that it had before the attempt."""
        row = await self._current(attempt)
        if row is not None:
            row.state, row.waiting_since = MessageState.PUBLISHED, None

    async def record_foreign(self, text: str, *, queue: str | None, message_id: UUID | None = None) -> None:
        """Insert a dead letter; a repeated delivery of the same message changes nothing."""
        now, key = self._messages.clock.now(), message_id or uuid4()
        row = MemoryMessage(
            key, {}, created_at=now, not_before=now, task=FOREIGN_TASK, state=MessageState.DEAD, queue=queue
        )
        row.settled_at, row.error = now, text[:MAX_ERROR_LENGTH]
        self._messages.rows.setdefault(key, row)

    async def purge_messages(
        self, *, outbox_age: timedelta, dead_letter_age: timedelta, inbox_age: timedelta, batch_size: int
    ) -> None:
        """Delete old rows; batches have no meaning here."""
        del batch_size
        messages, now = self._messages, self._messages.clock.now()
        for row in list(messages.rows.values()):
            age = dead_letter_age if row.state == MessageState.DEAD else outbox_age
            if row.settled_at is not None and row.settled_at < now - age and not messages.is_locked(row.id):
                del messages.rows[row.id]
        for key, taken_at in list(messages.taken_at.items()):
            row_of_key = messages.rows.get(key[0])
            may_return = row_of_key is not None and row_of_key.state not in {MessageState.DONE, MessageState.DISCARDED}
            if taken_at < now - inbox_age and not may_return:
                messages.taken_at.pop(key)
                messages.leases.pop(key, None)

    async def _current(self, attempt: Attempt) -> MemoryMessage | None:
        """Return the row if no other attempt has begun since, and the message is not settled."""
        row = await self._messages.unlocked(attempt.message_id)
        if row is None or row.attempts != attempt.number or row.state != MessageState.RUNNING:
            return None
        return row


def _has_died(row: MemoryMessage, now: datetime) -> bool:
    """Return whether the time of a running attempt is over, or its message was published again because it was."""
    over = row.redeliver_at is not None and row.redeliver_at <= now
    return over or (row.published_at is not None and row.started_at is not None and row.published_at > row.started_at)


def _wait(row: MemoryMessage, until: datetime) -> None:
    row.state, row.not_before, row.publications = MessageState.FAILED, until, 0
    row.published_at = row.redeliver_at = row.waiting_since = None

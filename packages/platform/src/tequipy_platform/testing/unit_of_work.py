"""A unit of work with outbox, inbox and idempotency keys in memory."""

import asyncio
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from tequipy_platform._clock import Clock
from tequipy_platform._events import JSON, Event
from tequipy_platform._messages import Inbox, Lease, Outbox, check_payload
from tequipy_platform._tasks import Delivery
from tequipy_platform._unit_of_work import UnitOfWork
from tequipy_platform.testing.idempotency import MemoryIdempotencyKeys
from tequipy_platform.testing.messages import MemoryMessages


@dataclass(frozen=True, slots=True)
class AddedTask:
    """A message that was added to a recording outbox."""

    task: str
    payload: dict[str, JSON]
    not_before: datetime | None = None


class RecordingOutbox(Outbox):
    """Records added tasks and published events, and stores them in `messages` as what a producer's release has sent.

    A `MemoryUnitOfWork` removes those of a block that it rolls back.
    """

    def __init__(self, messages: MemoryMessages, *, producer_version: str | None = None) -> None:
        self.tasks: list[AddedTask] = []
        self.events: list[Event] = []
        self._messages = messages
        self._producer_version = producer_version

    def add(self, task: str, /, *, not_before: datetime | None = None, **payload: JSON) -> None:
        """Record a task."""
        check_payload(task, payload)
        self.tasks.append(AddedTask(task, payload, not_before))
        self._messages.add(payload, task=task, not_before=not_before, producer_version=self._producer_version)

    def publish(self, event: Event) -> None:
        """Record an event."""
        check_payload(event.name, event.payload)
        self.events.append(event)
        self._messages.add(event.payload, event=event.name, producer_version=self._producer_version)


class MemoryInbox(Inbox):
    """An inbox over `MemoryMessages`."""

    def __init__(self, messages: MemoryMessages) -> None:
        self.leases = messages.leases
        self.taken_at = messages.taken_at
        self._clock = messages.clock

    async def take(self, delivery: Delivery) -> bool:
        """Claim the delivery."""
        if self._key(delivery) in self.leases:
            return False
        self._store(delivery, None)
        return True

    async def lease(self, delivery: Delivery, duration: timedelta) -> Lease:
        """Take the lease if no attempt holds it or if it has expired."""
        now = self._clock.now()
        until = self.leases.get(self._key(delivery), now)
        if until is None:
            return Lease.DONE
        if until > now:
            return Lease.HELD
        self._store(delivery, now + duration)
        return Lease.TAKEN

    async def done(self, delivery: Delivery) -> None:
        """Record that the effect has been performed."""
        self._store(delivery, None)

    async def release(self, delivery: Delivery) -> None:
        """Release the lease."""
        if self.leases.get(self._key(delivery)) is not None:
            del self.leases[self._key(delivery)], self.taken_at[self._key(delivery)]

    def _store(self, delivery: Delivery, until: datetime | None) -> None:
        self.leases[self._key(delivery)], self.taken_at[self._key(delivery)] = until, self._clock.now()

    def _key(self, delivery: Delivery) -> tuple[UUID, str]:
        return delivery.id, delivery.task


class MemoryUnitOfWork(UnitOfWork):
    """A unit of work over collections in memory; leaving the block by an exception restores them.

    A subclass extends `tables`. Concurrent blocks of one unit of work run one after the other. With `messages`, outbox
    and inbox are shared with a `MemoryMessageLog` and a `MemoryUnpublishedMessages`.
    """

    outbox: RecordingOutbox
    inbox: MemoryInbox
    idempotency: MemoryIdempotencyKeys

    def __init__(
        self, clock: Clock, messages: MemoryMessages | None = None, *, producer_version: str | None = None
    ) -> None:
        self._messages = messages if messages is not None else MemoryMessages(clock)
        self.outbox = RecordingOutbox(self._messages, producer_version=producer_version)
        self.inbox = MemoryInbox(self._messages)
        self.idempotency = MemoryIdempotencyKeys(self._messages.clock)
        self._turn = asyncio.Lock()

    def tables(self) -> Sequence[dict[Any, Any] | list[Any]]:
        """Return every collection that a rollback restores."""
        stored = (self._messages.rows, self._messages.leases, self._messages.taken_at)
        return (self.outbox.tasks, self.outbox.events, self.idempotency.rows, *stored)

    async def __aenter__(self) -> Self:
        await self._turn.acquire()
        self._before = [copy(table) for table in self.tables()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._restore()
        self._turn.release()

    def _restore(self) -> None:
        for table, before in zip(self.tables(), self._before, strict=True):
            table.clear()
            if isinstance(table, dict):
                table.update(before)
            else:
                table.extend(before)

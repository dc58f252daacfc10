"""In-memory fakes of all ports, and a clock and ids that tests can predict."""

import re
from collections.abc import AsyncIterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from tequipy_platform._clock import Clock
from tequipy_platform._events import JSON, Event
from tequipy_platform._mail import Mail, Mailer, MailRejected
from tequipy_platform._messages import Inbox, Lease, Outbox, check_payload
from tequipy_platform._storage import ObjectExists, ObjectNotFound, ObjectStorage, StoredObject
from tequipy_platform._tasks import Delivery
from tequipy_platform._unit_of_work import UnitOfWork

__all__ = [
    "EPOCH",
    "AddedTask",
    "CountingIds",
    "FrozenClock",
    "MemoryInbox",
    "MemoryStorage",
    "MemoryUnitOfWork",
    "RecordingMailer",
    "RecordingOutbox",
]

_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\"\\]+@[^\s@<>()\[\],;:\"\\]+")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")

EPOCH = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
"""The default start time of a `FrozenClock`."""


class FrozenClock(Clock):
    """A clock that changes only when it is advanced."""

    def __init__(self, now: datetime = EPOCH) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the clock's current time."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Advance the clock."""
        self._now += by


class CountingIds:
    """A source of ids 1, 2, 3, … in the form of UUIDv7."""

    def __init__(self) -> None:
        self._made = 0

    def __call__(self) -> UUID:
        """Return the next id."""
        self._made += 1
        return UUID(f"01900000-0000-7000-8000-{self._made:012x}")


@dataclass(frozen=True, slots=True)
class AddedTask:
    """A message that was added to a recording outbox."""

    task: str
    payload: dict[str, JSON]
    not_before: datetime | None = None


class RecordingOutbox(Outbox):
    """Records added tasks and published events; a `MemoryUnitOfWork` removes those of a block that it rolls back."""

    def __init__(self) -> None:
        self.tasks: list[AddedTask] = []
        self.events: list[Event] = []

    def add(self, task: str, /, *, not_before: datetime | None = None, **payload: JSON) -> None:
        """Record a task."""
        check_payload(task, payload)
        self.tasks.append(AddedTask(task, payload, not_before))

    def publish(self, event: Event) -> None:
        """Record an event."""
        check_payload(event.name, event.payload)
        self.events.append(event)


class MemoryInbox(Inbox):
    """An inbox in a dictionary: None means done, a time is the end of a lease."""

    def __init__(self, clock: Clock) -> None:
        self.leases: dict[tuple[UUID, str], datetime | None] = {}
        self._clock = clock

    async def take(self, delivery: Delivery) -> bool:
        """Claim the delivery."""
        if self._key(delivery) in self.leases:
            return False
        self.leases[self._key(delivery)] = None
        return True

    async def lease(self, delivery: Delivery, duration: timedelta) -> Lease:
        """Take the lease if no attempt holds it or if it has expired."""
        now = self._clock.now()
        until = self.leases.get(self._key(delivery), now)
        if until is None:
            return Lease.DONE
        if until > now:
            return Lease.HELD
        self.leases[self._key(delivery)] = now + duration
        return Lease.TAKEN

    async def done(self, delivery: Delivery) -> None:
        """Record that the effect has been performed."""
        self.leases[self._key(delivery)] = None

    async def release(self, delivery: Delivery) -> None:
        """Release the lease."""
        if self.leases.get(self._key(delivery)) is not None:
            del self.leases[self._key(delivery)]

    def _key(self, delivery: Delivery) -> tuple[UUID, str]:
        return delivery.id, delivery.task


class MemoryUnitOfWork(UnitOfWork):
    """A unit of work over collections in memory; leaving the block by an exception restores them.

    A subclass extends `tables`. Blocks must not overlap, because there is no isolation between them.
    """

    outbox: RecordingOutbox
    inbox: MemoryInbox

    def __init__(self, clock: Clock) -> None:
        self.outbox = RecordingOutbox()
        self.inbox = MemoryInbox(clock)

    def tables(self) -> Sequence[dict[Any, Any] | list[Any]]:
        """Return every collection that a rollback restores."""
        return (self.outbox.tasks, self.outbox.events, self.inbox.leases)

    async def __aenter__(self) -> Self:
        self._before = [copy(table) for table in self.tables()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        for table, before in zip(self.tables(), self._before, strict=True):
            table.clear()
            if isinstance(table, dict):
                table.update(before)
            else:
                table.extend(before)


class RecordingMailer(Mailer):
    """Records sent mails; refuses the headers that real mailers refuse."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def send(self, mail: Mail) -> None:
        """Record one mail."""
        headers = (mail.subject, *mail.headers, *mail.headers.values())
        if not _ADDRESS.fullmatch(mail.to) or not _MESSAGE_ID.fullmatch(mail.message_id):
            raise MailRejected
        if any(character in header for header in headers for character in "\r\n\0"):
            raise MailRejected
        self.mails.append(mail)


class MemoryStorage(ObjectStorage):
    """Object storage in a dictionary."""

    def __init__(self, clock: Clock) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object."""
        whole = content if isinstance(content, bytes) else b"".join([chunk async for chunk in content])
        if key in self.objects:
            raise ObjectExists
        self.objects[key] = whole, self._clock.now()
        return await self.head(key)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Stream an object in one piece."""
        if key not in self.objects:
            raise ObjectNotFound
        yield self.objects[key][0]

    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata."""
        if key not in self.objects:
            raise ObjectNotFound
        content, modified_at = self.objects[key]
        return StoredObject(key, len(content), modified_at)

    async def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        self.objects.pop(key, None)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects below a prefix."""
        for key in sorted(self.objects):
            if not prefix or key.startswith(prefix.rstrip("/") + "/"):
                yield await self.head(key)

    async def ping(self) -> None:
        """Do nothing: memory is always available."""

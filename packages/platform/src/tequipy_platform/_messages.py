"""Outbox and inbox of the unit of work: messages to send after the commit, and deliveries that were handled."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from tequipy_platform._events import JSON, Event
from tequipy_platform._tasks import Delivery


class Outbox(ABC):
    """Messages that are stored in the transaction that causes them; the relay publishes each at least once."""

    @abstractmethod
    def add(self, task: str, /, *, not_before: datetime | None = None, **payload: JSON) -> None:
        """Store a message that runs `task` with `payload` after this transaction commits, not before `not_before`."""

    @abstractmethod
    def publish(self, event: Event) -> None:
        """Store an event that is fanned out to every subscribed task after this transaction commits."""


class Lease(Enum):
    """The answer to an attempt that asks for the lease of an effect outside the database."""

    TAKEN = "taken"
    """This attempt may perform the effect."""
    DONE = "done"
    """An earlier attempt performed the effect: nothing is left to do."""
    HELD = "held"
    """Another attempt holds a lease that has not expired: retry later."""


class Inbox(ABC):
    """Records handled deliveries, so that a message that is delivered twice has its effect once."""

    @abstractmethod
    async def take(self, delivery: Delivery) -> bool:
        """Claim the delivery in this transaction; return False if an earlier transaction has committed a claim.

        For effects inside the database: claim and effect are committed together, so the effect happens exactly once.
        After False the caller must do nothing.
        """

    @abstractmethod
    async def lease(self, delivery: Delivery, duration: timedelta) -> Lease:
        """Ask for the right to perform an effect outside the database (mail, storage) within `duration`.

        Commit the lease before the effect, and `done` after it. The lease of an attempt that died expires, and the
        effect is performed again, so it must be harmless when repeated.
        """

    @abstractmethod
    async def done(self, delivery: Delivery) -> None:
        """Record that the effect has been performed."""

    @abstractmethod
    async def release(self, delivery: Delivery) -> None:
        """Release the lease after an attempt that failed for certain, so that the next attempt need not wait."""


@dataclass(frozen=True, slots=True)
class UnpublishedMessage:
    """A message that the relay has to publish."""

    id: UUID
    task: str
    payload: Mapping[str, JSON]
    correlation_id: str | None
    traceparent: str | None
    failed_attempts: int = 0
    failing_since: datetime | None = None
    """When the first attempt failed; None if none has."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are locked by one relay, and the result for each; a message without a result is released."""

    messages: Sequence[UnpublishedMessage]
    published: set[UUID] = field(default_factory=set)
    """Ids of messages that the broker has accepted."""
    refused: set[UUID] = field(default_factory=set)
    """Ids of messages that cannot be published for a reason of their own, whatever the state of the broker."""


class UnpublishedMessages(ABC):
    """The outbox as the relay reads it; any number of relays may share it."""

    @abstractmethod
    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn up to `limit` events into one message for each subscribed task; return the number of events.

        `subscribers` maps the name of an event to the names of its subscribed tasks. An event without any is settled.
        The id of a message is `uuid5(id of the event's row, task)`.
        """

    @abstractmethod
    def batch(self, limit: int) -> AbstractAsyncContextManager[Batch]:
        """Lock up to `limit` due messages, oldest first, for this relay.

        Leaving the block normally stores the results in the batch; leaving it by an exception releases all messages. A
        published message that is not settled in time becomes due again under the same id, because the broker may have
        lost it. A refused message becomes due again later. The wait doubles each time, and after the last one the
        message becomes a dead letter.
        """

    @abstractmethod
    async def wait(self, at_most: float) -> None:
        """Return when messages were added, or after `at_most` seconds."""


class MessageLog(ABC):
    """Stores the outcome of messages; ids that are not in the outbox are ignored."""

    @abstractmethod
    async def settle_message(self, message_id: UUID) -> None:
        """Record that the message is finished, successfully or not, so that it is never published again."""

    @abstractmethod
    async def retry_message(self, message_id: UUID, wait: timedelta) -> bool:
        """Record a failed attempt, so that the relay publishes the message again after `wait`.

        A message that is settled stays so. Returns False, and records nothing, for an id that is not in the outbox.
        """

    @abstractmethod
    async def purge_messages(self, *, outbox_age: timedelta, inbox_age: timedelta, batch_size: int) -> None:
        """Delete outbox rows settled, and inbox rows handled, longer ago than the given ages, in batches."""

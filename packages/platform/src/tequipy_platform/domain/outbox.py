"""The unit of work's two mailboxes: the outbox for what must follow a commit, the inbox for what happens only once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol
from uuid import UUID

from tequipy_platform.domain.events import JSON, Event
from tequipy_platform.domain.tasks import Delivery


class Outbox(ABC):
    """Rows in the same commit as what caused them; the relay turns them into messages, at least once each."""

    @abstractmethod
    def add(self, task: str, /, *, not_before: datetime | None = None, **payload: JSON) -> None:
        """Ask for `task` to run with `payload` once this unit of work has committed, not before the given time."""

    @abstractmethod
    def publish(self, event: Event) -> None:
        """Tell every task that names the event, once this unit of work has committed."""


class Lease(Enum):
    """What an attempt learns when it asks to perform an effect outside the database."""

    TAKEN = "taken"
    """The effect is this attempt's to perform."""
    DONE = "done"
    """An earlier attempt performed it: there is nothing left to do."""
    HELD = "held"
    """Another attempt is at it and its lease has not ended: try again later."""


class Inbox(ABC):
    """Remembers deliveries, so that a message delivered twice has its effect once."""

    @abstractmethod
    async def take(self, delivery: Delivery) -> bool:
        """Claim the delivery within this unit of work; False when an earlier one committed it: then do nothing.

        For effects inside the database: the claim and the effect share the commit, so the effect happens exactly once.
        """

    @abstractmethod
    async def lease(self, delivery: Delivery, duration: timedelta) -> Lease:
        """Ask to perform an effect outside the database (mail, storage) within `duration`.

        Commit the lease before the effect and `done` after it. An attempt that died leaves a lease that ends by
        itself: the effect is then repeated, so it must be harmless when repeated.
        """

    @abstractmethod
    async def done(self, delivery: Delivery) -> None:
        """Record that the effect has been performed."""

    @abstractmethod
    async def release(self, delivery: Delivery) -> None:
        """Give the lease back after an attempt that is known to have failed, so that the next one need not wait."""


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message that waits for the relay."""

    id: UUID
    task: str
    payload: Mapping[str, JSON]
    correlation_id: str | None
    traceparent: str | None
    failed_attempts: int = 0
    failing_since: datetime | None = None
    """When the first of them failed; None before that."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are lent to one relay, and what it says of them; what it says nothing of it gives back."""

    messages: Sequence[PendingMessage]
    published: set[UUID] = field(default_factory=set)
    """The broker has them."""
    refused: set[UUID] = field(default_factory=set)
    """They cannot be published as they are, whatever the broker's state."""


class PendingMessages(ABC):
    """The outbox as the relay sees it; any number of relays share it."""

    @abstractmethod
    async def spread(self, listeners: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn up to `limit` waiting events into one message for each of their listeners; return how many it were.

        `listeners` names tasks by event; an event without listeners is over. The message's id is
        `uuid5(event's row, task)`.
        """

    @abstractmethod
    def batch(self, limit: int) -> AbstractAsyncContextManager[Batch]:
        """Lend up to `limit` messages that are due, oldest first, to this relay alone.

        Leaving the block cleanly keeps what the batch says; leaving it by an exception gives all messages back. A
        published message that is not settled in time is due again, under the same id, for the broker may have lost it;
        a refused one is due again later. Each time the wait is twice as long, and in the end the message is given up.
        """

    @abstractmethod
    async def wait(self, at_most: float) -> None:
        """Return when messages were added, at the latest after `at_most` seconds."""


class MessageLog(Protocol):
    """Where the worker says what became of a message; an id that is none of the outbox is no error."""

    async def settle_message(self, message_id: UUID) -> None:
        """Record that the message has ended, well or for good: it is not published again."""

    async def retry_message(self, message_id: UUID, wait: timedelta) -> bool:
        """Record a failed attempt and have the relay publish the message again after `wait`, unless it has ended.

        Returns False, and records nothing, for an id that is none of the outbox.
        """

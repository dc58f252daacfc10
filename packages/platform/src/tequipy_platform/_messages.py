"""Outbox and inbox of the unit of work: messages to send after the commit, and deliveries that were handled."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final
from uuid import UUID

from tequipy_platform._events import JSON, Event
from tequipy_platform._tasks import Delivery

MESSAGE_SCHEMA: Final = 1
"""The version of the format of messages that this release writes, and the latest that it can read."""

MAX_PAYLOAD_BYTES: Final = 65_536
"""The limit of a message's payload as JSON in UTF-8; larger data belongs into a table or the object storage."""
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""U+0000 as JSON escapes it, and not an escaped backslash before the letters `u0000`."""


class PayloadRefused(ValueError):
    """A payload that the outbox cannot store."""


def check_payload(name: str, payload: Mapping[str, JSON]) -> None:
    """Raise `PayloadRefused` if the payload of the task or event `name` is no JSON, or too large."""
    try:
        encoded = json.dumps(dict(payload), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadRefused(f"the payload of {name} is not JSON: {type(error).__name__}") from None
    if _NUL.search(encoded):  # PostgreSQL's jsonb cannot store it
        raise PayloadRefused(f"the payload of {name} contains the character U+0000")
    if len(encoded) > MAX_PAYLOAD_BYTES:
        raise PayloadRefused(
            f"the payload of {name} has {len(encoded)} bytes, more than {MAX_PAYLOAD_BYTES}: "
            "store the data, and send its id or key"
        )


class Outbox(ABC):
    """Messages that are stored in the transaction that causes them; the relay publishes each at least once.

    Both methods raise `PayloadRefused` for a payload that is not JSON or exceeds `MAX_PAYLOAD_BYTES`.
    """

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


class MessageState(StrEnum):
    """The state of a message or event in the outbox."""

    PENDING = "pending"
    """It waits for its first publication, or was returned by a worker that stopped."""
    PUBLISHED = "published"
    """The broker has it."""
    RUNNING = "running"
    """An attempt has begun."""
    FAILED = "failed"
    """The last attempt failed, or no process could handle it yet; it waits for its next publication."""
    DONE = "done"
    DEAD = "dead"
    """A dead letter: it is not tried again unless a person asks for it."""
    DISCARDED = "discarded"
    """A dead letter that a person has given up."""


@dataclass(frozen=True, slots=True)
class UnpublishedMessage:
    """A message that the relay has to publish; its payload stays in the outbox."""

    id: UUID
    task: str
    correlation_id: str | None = None
    traceparent: str | None = None
    producer_version: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are locked by one relay, and the result for each; a message without a result is released."""

    messages: Sequence[UnpublishedMessage]
    published: set[UUID] = field(default_factory=set)
    """Ids of messages that the broker has accepted."""
    refused: dict[UUID, str] = field(default_factory=dict)
    """Errors of messages that the broker refuses for a reason of their own while it accepts others."""


class UnpublishedMessages(ABC):
    """The outbox as the relay reads it; any number of relays may share it."""

    @abstractmethod
    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        """Turn up to `limit` events into one message for each subscribed task; return the number of events.

        `subscribers` maps the name of an event to the names of its subscribed tasks. The id of a message is derived
        from the event's id and the task, so it is created once. An event of a producer that is newer than this
        process stays available for an hour, because a newer relay may know further subscribers; it then becomes a dead
        letter if it has none. Any other event without subscribers is done.
        """

    @abstractmethod
    def batch(self, limit: int) -> AbstractAsyncContextManager[Batch]:
        """Lock up to `limit` due messages for this relay: new ones first, oldest first, then missed ones.

        Leaving the block normally stores the results in the batch; leaving it by an exception releases all messages. A
        published message that is not settled in time is missed if a later message of its queue has been received. If
        none was published lately, the oldest one is published again, to find out. A refused message becomes due again
        later, and after an hour a dead letter.
        """

    @abstractmethod
    async def wait(self, at_most: float) -> None:
        """Return when messages were added, or after `at_most` seconds."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a message that has begun."""

    message_id: UUID
    number: int
    """Counts all attempts at the message that have begun."""
    task: str
    payload: Mapping[str, JSON]
    schema_version: int = 1
    correlation_id: str | None = None
    traceparent: str | None = None
    failed_attempts: int = 0
    deaths: int = 0
    """The number of earlier attempts that ended without an outcome, because their process was killed."""
    failing_for: timedelta | None = None
    """The time since the first failure; None if no attempt has failed."""
    after_death: bool = False
    """Whether the last attempt before this one ended without an outcome."""


class MessageLog(ABC):
    """Stores the attempts at messages and their outcomes.

    An outcome names its attempt: a late one, after another attempt has begun or the message was settled, is ignored,
    except a success.
    """

    @abstractmethod
    async def begin(
        self, message_id: UUID, worker: str, *, redelivered: bool = False, repeated: bool = False
    ) -> Attempt | None:
        """Begin an attempt in the process `worker`; None if the message is settled, runs, or waits for a publication.

        An earlier attempt without an outcome counts as failed, because its process died, if the broker has
        `redelivered` this copy of the message, if the relay has published it again since, or if its time is over.
        Otherwise this is a second copy of a message that runs. If the call is `repeated`, because the database gave no
        answer to an earlier one, an attempt of this `worker` is the one which that call began, and nothing has died.
        Raises `NotFound` for an id that is no message's.
        """

    @abstractmethod
    async def succeed(self, attempt: Attempt) -> None:
        """Record that the message is done."""

    @abstractmethod
    async def fail(self, attempt: Attempt, error: str, *, retry_in: timedelta | None) -> None:
        """Record a failed attempt: the next one begins after `retry_in`; None makes the message a dead letter."""

    @abstractmethod
    async def postpone(self, attempt: Attempt, wait: timedelta) -> None:
        """End an attempt without running it, because earlier ones killed their processes; the next begins later."""

    @abstractmethod
    async def wait_for_release(self, attempt: Attempt, reason: str) -> bool:
        """Leave the message to a newer process; return False, and make it a dead letter, after an hour of waiting."""

    @abstractmethod
    async def hand_back(self, attempt: Attempt) -> None:
        """End an attempt without an outcome, because its worker stops; the broker delivers the message again."""

    @abstractmethod
    async def record_foreign(self, text: str, *, queue: str | None, message_id: UUID | None = None) -> None:
        """Store a dead letter for a message in the broker that is not from the outbox; `text` describes it."""

    @abstractmethod
    async def purge_messages(
        self, *, outbox_age: timedelta, dead_letter_age: timedelta, inbox_age: timedelta, batch_size: int
    ) -> None:
        """Delete what was done, or became a dead letter, or was handled, longer ago than the given ages, in batches.

        A handled delivery is kept while its message may be delivered again, a dead letter's by a retry.
        """

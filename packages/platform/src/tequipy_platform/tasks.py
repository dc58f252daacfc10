"""Background tasks of platform: the purge of old messages and idempotency keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tequipy_platform._messages import MessageLog
from tequipy_platform._tasks import Delivery, Handler, Task
from tequipy_platform._unit_of_work import UnitOfWork

__all__ = ["TASKS", "build_handlers"]

PURGE_MESSAGES: Final = Task(
    "platform.purge_messages",
    every=timedelta(hours=1),
    time_limit=timedelta(seconds=30),  # the next run deletes the remaining rows
)
TASKS: Final = (PURGE_MESSAGES,)

BATCH_SIZE: Final = 1000
"""The number of rows that one transaction of the purge deletes."""


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Deletes old rows of outbox and inbox, and expired idempotency keys."""

    messages: MessageLog
    unit_of_work: Callable[[], UnitOfWork]
    outbox_age: timedelta
    dead_letter_age: timedelta
    inbox_age: timedelta

    async def purge_messages(self, delivery: Delivery) -> None:  # noqa: ARG002 -- harmless when repeated: it needs no inbox
        """Delete rows that are older than the configured ages, in batches with a transaction for each."""
        await self.messages.purge_messages(
            outbox_age=self.outbox_age,
            dead_letter_age=self.dead_letter_age,
            inbox_age=self.inbox_age,
            batch_size=BATCH_SIZE,
        )
        deleted = BATCH_SIZE
        while deleted == BATCH_SIZE:
            async with self.unit_of_work() as work:
                deleted = await work.idempotency.purge(limit=BATCH_SIZE)


def build_handlers(
    messages: MessageLog,
    unit_of_work: Callable[[], UnitOfWork],
    *,
    outbox_age: timedelta = timedelta(days=7),
    dead_letter_age: timedelta = timedelta(days=90),
    inbox_age: timedelta = timedelta(days=30),
) -> Mapping[Task, Handler]:
    """Return a handler for each of `TASKS`.

    `inbox_age` must exceed the longest time after which the broker can deliver a message that is done.
    """
    return {PURGE_MESSAGES: Housekeeping(messages, unit_of_work, outbox_age, dead_letter_age, inbox_age).purge_messages}

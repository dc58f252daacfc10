"""Background tasks of platform: the purge of old messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tequipy_platform._messages import MessageLog
from tequipy_platform._tasks import Delivery, Handler, Task

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
    """Deletes old rows of outbox and inbox."""

    messages: MessageLog
    outbox_age: timedelta
    dead_letter_age: timedelta
    inbox_age: timedelta

    async def purge_messages(self, delivery: Delivery) -> None:  # noqa: ARG002 -- harmless when repeated: it needs no inbox
        """Delete rows that are older than the configured ages."""
        await self.messages.purge_messages(
            outbox_age=self.outbox_age,
            dead_letter_age=self.dead_letter_age,
            inbox_age=self.inbox_age,
            batch_size=BATCH_SIZE,
        )


def build_handlers(
    messages: MessageLog,
    *,
    outbox_age: timedelta = timedelta(days=7),
    dead_letter_age: timedelta = timedelta(days=90),
    inbox_age: timedelta = timedelta(days=30),
) -> Mapping[Task, Handler]:
    """Return a handler for each of `TASKS`.

    `inbox_age` must exceed the longest time after which the broker can deliver a message that is done.
    """
    return {PURGE_MESSAGES: Housekeeping(messages, outbox_age, dead_letter_age, inbox_age).purge_messages}

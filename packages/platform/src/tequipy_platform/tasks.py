"""Background tasks of platform: the purge of old messages."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tequipy_platform._messages import MessageLog
from tequipy_platform._tasks import Delivery, Task

__all__ = ["platform_tasks"]

BATCH_SIZE: Final = 1000
"""The number of rows that one transaction of the purge deletes."""


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Deletes old rows of outbox and inbox."""

    messages: MessageLog
    outbox_age: timedelta
    inbox_age: timedelta

    async def purge_messages(self, delivery: Delivery) -> None:  # noqa: ARG002 -- harmless when repeated: it needs no inbox
        """Delete rows that are older than the configured ages."""
        await self.messages.purge_messages(outbox_age=self.outbox_age, inbox_age=self.inbox_age, batch_size=BATCH_SIZE)


def platform_tasks(
    messages: MessageLog,
    *,
    outbox_age: timedelta = timedelta(days=7),
    inbox_age: timedelta = timedelta(days=30),
) -> tuple[Task, ...]:
    """Return platform's tasks; `inbox_age` must exceed the longest time after which a message can be redelivered."""
    housekeeping = Housekeeping(messages, outbox_age, inbox_age)
    return (
        Task(
            "platform.purge_messages",
            housekeeping.purge_messages,
            every=timedelta(hours=1),
            time_limit=timedelta(seconds=30),  # the next run deletes the remaining rows
        ),
    )

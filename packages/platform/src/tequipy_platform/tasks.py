"""Background tasks of platform: the purge of old messages."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from tequipy_platform.domain.tasks import Delivery, Task

BATCH_SIZE: Final = 1000
"""The number of rows that one transaction of the purge deletes."""


class MessageStore(Protocol):
    """A store of outbox and inbox, such as platform's database."""

    async def purge_messages(self, *, outbox_age: timedelta, inbox_age: timedelta, batch_size: int) -> None:
        """Delete outbox rows settled, and inbox rows handled, longer ago than the given ages, in batches."""


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Deletes old rows of outbox and inbox."""

    store: MessageStore
    outbox_age: timedelta
    inbox_age: timedelta

    async def purge_messages(self, delivery: Delivery) -> None:  # noqa: ARG002 -- harmless when repeated: it needs no inbox
        """Delete rows that are older than the configured ages."""
        await self.store.purge_messages(outbox_age=self.outbox_age, inbox_age=self.inbox_age, batch_size=BATCH_SIZE)


def platform_tasks(
    database: MessageStore,
    *,
    outbox_age: timedelta = timedelta(days=7),
    inbox_age: timedelta = timedelta(days=30),
) -> tuple[Task, ...]:
    """Return platform's tasks; `inbox_age` must exceed the longest time after which a message can be redelivered."""
    housekeeping = Housekeeping(database, outbox_age, inbox_age)
    return (
        Task(
            "platform.purge_messages",
            housekeeping.purge_messages,
            every=timedelta(hours=1),
            time_limit=timedelta(seconds=30),  # the next run deletes the remaining rows
        ),
    )

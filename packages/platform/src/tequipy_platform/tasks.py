"""The ground's own background work: forgetting old messages."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from tequipy_platform.domain.tasks import Delivery, Task

BATCH_SIZE: Final = 1000
"""Rows that one transaction of the purge deletes."""


class MessageStore(Protocol):
    """Where outbox and inbox are kept: platform's database is one."""

    async def purge_messages(self, *, outbox_age: timedelta, inbox_age: timedelta, batch_size: int) -> None:
        """Delete outbox rows published and inbox rows handled longer ago than that, in batches."""


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Keeps outbox and inbox small."""

    store: MessageStore
    outbox_age: timedelta
    inbox_age: timedelta

    async def purge_messages(self, delivery: Delivery) -> None:  # noqa: ARG002 -- harmless when repeated: it needs no inbox
        """Delete what is old enough that nobody will ask for it again."""
        await self.store.purge_messages(outbox_age=self.outbox_age, inbox_age=self.inbox_age, batch_size=BATCH_SIZE)


def platform_tasks(
    database: MessageStore,
    *,
    outbox_age: timedelta = timedelta(days=7),
    inbox_age: timedelta = timedelta(days=30),
) -> tuple[Task, ...]:
    """Return platform's tasks; `inbox_age` must exceed the longest time after which a message may come back."""
    housekeeping = Housekeeping(database, outbox_age, inbox_age)
    return (
        Task(
            "platform.purge_messages",
            housekeeping.purge_messages,
            every=timedelta(hours=1),
            time_limit=timedelta(seconds=30),  # what is left over waits for the next hour
        ),
    )

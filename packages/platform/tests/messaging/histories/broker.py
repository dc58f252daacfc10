"""A model of a broker: queues in order, unacknowledged messages, and everything that can go wrong with them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from uuid import UUID

from tequipy_platform import UnpublishedMessage
from tequipy_platform.messaging.relay import Broker

from .processes import Outage, Process

VISIBILITY = 600.0


@dataclass(eq=False)
class Copy:
    """One copy of a message in the broker; without an id it is a foreign body."""

    message_id: UUID | None
    queue: str
    redelivered: bool = False


@dataclass
class Queues:
    """The state of the broker, by its own clock, which is never wrong."""

    now: float = 0.0
    up: bool = True
    full: bool = False
    refused: set[UUID] = field(default_factory=set)
    waiting: dict[str, list[Copy]] = field(default_factory=dict)
    unacknowledged: list[tuple[Process, Copy, float]] = field(default_factory=list)
    late: list[Copy] = field(default_factory=list)

    def put(self, copy: Copy) -> None:
        self.waiting.setdefault(copy.queue, []).append(copy)

    def next_of(self, queues: Collection[str]) -> str | None:
        return next((queue for queue in queues if self.waiting.get(queue)), None)

    def receive(self, process: Process, queues: Collection[str]) -> Copy | None:
        queue = self.next_of(queues)
        if queue is None:
            return None
        copy = self.waiting[queue].pop(0)
        self.unacknowledged.append((process, copy, self.now + VISIBILITY))
        return copy

    def acknowledge(self, copy: Copy) -> None:
        self.unacknowledged = [held for held in self.unacknowledged if held[1] is not copy]

    def give_back(self, process: Process, copy: Copy | None = None) -> None:
        """Put unacknowledged copies of a process back to the front of their queues."""
        mine = [held for held in self.unacknowledged if held[0] is process and (copy is None or held[1] is copy)]
        self._restore(mine)

    def restore(self) -> None:
        """Deliver again what was not acknowledged in time."""
        self._restore([held for held in self.unacknowledged if held[2] <= self.now])

    def _restore(self, held: list[tuple[Process, Copy, float]]) -> None:
        for each in held:
            self.unacknowledged.remove(each)
            copy = Copy(each[1].message_id, each[1].queue, redelivered=True)
            self.waiting.setdefault(copy.queue, []).insert(0, copy)

    def copies(self) -> list[Copy]:
        return [copy for queue in sorted(self.waiting) for copy in self.waiting[queue]]

    def lose(self, copy: Copy) -> None:
        self.waiting[copy.queue] = [other for other in self.waiting[copy.queue] if other is not copy]

    def empty(self) -> None:
        self.waiting.clear()
        self.unacknowledged.clear()


class RefusedError(Exception):
    """The broker refuses a message."""


class ModelBroker(Broker):
    """The broker as one relay sees it."""

    def __init__(self, process: Process, queues: Queues, routes: dict[str, str]) -> None:
        self._process = process
        self._queues = queues
        self._routes = routes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def publish(self, messages: Sequence[UnpublishedMessage]) -> None:
        """Publish up to the first refused message."""

        async def put() -> None:
            if self._queues.full:
                raise Outage("the broker is full")
            for message in messages:
                if message.id in self._queues.refused:
                    raise RefusedError
                self._queues.put(Copy(message.id, self._routes.get(message.task, "default")))

        await self._process.step("publish", put)

    async def accepts_writes(self) -> bool:
        """Return whether the broker is neither away nor full."""
        return self._queues.up and not self._queues.full

"""Two releases of an app: their tasks, subscribers, payloads, message formats and handlers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from tequipy_platform import Delivery, Event, Handler, Lease, RetryPolicy, Task
from tequipy_platform.testing import MemoryMessages, MemoryUnitOfWork

from .processes import Outage, Process
from .truth import Truth

MINUTES = timedelta(minutes=1)
NOTE = Task("test.note", on=("noted",))
MAIL = Task("test.mail", queue="email")
FLAKY = Task("test.flaky", retry=RetryPolicy(attempts=8))
BROKEN = Task("test.broken", retry=RetryPolicy(attempts=3))
KILLER = Task("test.kill", retry=RetryPolicy(deaths=3))
CHAIN = Task("test.chain", queue="email")
FRESH = Task("test.fresh", on=("renewed",), queue="extra")
NOTE_TOO = Task("test.note_too", on=("noted",), queue="email")
OLD_TASKS = (NOTE, MAIL, FLAKY, BROKEN, KILLER, CHAIN)
NEW_TASKS = (*OLD_TASKS, FRESH, NOTE_TOO)
ERRORS = (
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    MemoryError,
    asyncio.CancelledError,
    Outage,
)
LEASE = timedelta(minutes=5)


@dataclass(frozen=True)
class Release:
    """A release: version, tasks, and the format of messages that it writes and reads."""

    version: str
    tasks: tuple[Task, ...]
    schema: int
    is_new: bool

    @property
    def queues(self) -> dict[str, str]:
        return {task.name: task.queue for task in self.tasks}

    def subscribers(self, event: str) -> set[str]:
        return {task.name for task in self.tasks if event in task.on}


def releases(versions: tuple[str, str]) -> tuple[Release, Release]:
    """Return the old and the new release."""
    return Release(versions[0], OLD_TASKS, 1, is_new=False), Release(versions[1], NEW_TASKS, 2, is_new=True)


class HeldError(Exception):
    """Another attempt holds the lease."""


@dataclass(frozen=True)
class Handlers:
    """The handlers of one process; each step of an effect can be disturbed."""

    process: Process
    release: Release
    messages: MemoryMessages
    truth: Truth

    def all(self) -> Mapping[Task, Handler]:
        handlers: dict[Task, Handler] = {
            NOTE: self.note_new if self.release.is_new else self.note,
            MAIL: self.mail,
            FLAKY: self.flaky,
            BROKEN: self.broken,
            KILLER: self.kill,
            CHAIN: self.chain,
            FRESH: self.note,
            NOTE_TOO: self.note_new,
        }
        return {task: handlers[task] for task in self.release.tasks}

    async def note(self, delivery: Delivery, word: str = "") -> None:
        del word
        self.truth.started[delivery.id] += 1
        await self._effect(delivery)

    async def note_new(self, delivery: Delivery, word: str = "", extra: str = "") -> None:
        del extra
        await self.note(delivery, word)

    async def flaky(self, delivery: Delivery, times: int) -> None:
        self.truth.started[delivery.id] += 1
        if self.truth.raised[delivery.id] < times:
            self.truth.raised[delivery.id] += 1
            raise LookupError
        await self._effect(delivery)

    async def broken(self, delivery: Delivery) -> None:
        self.truth.started[delivery.id] += 1
        raise ERRORS[delivery.id.int % len(ERRORS)]

    async def kill(self, delivery: Delivery) -> None:
        self.truth.started[delivery.id] += 1
        self.process.die()

    async def chain(self, delivery: Delivery) -> None:
        self.truth.started[delivery.id] += 1
        await self._effect(delivery, chain=True)

    async def mail(self, delivery: Delivery) -> None:
        """Send under a lease, as mails are."""
        self.truth.started[delivery.id] += 1
        lease = await self.process.step("lease", lambda: self._lease(delivery))
        if lease is Lease.HELD:
            raise HeldError
        if lease is Lease.TAKEN:
            await self.process.step("send", lambda: self._send(delivery))
            await self.process.step("done", lambda: self._done(delivery))

    async def _effect(self, delivery: Delivery, *, chain: bool = False) -> None:
        async def commit() -> None:
            async with self._work() as work:
                if await work.inbox.take(delivery):
                    self.truth.effects[delivery.id] += 1
                    if chain:
                        work.outbox.add(NOTE.name, word="next")
                        work.outbox.publish(Event("noted", {"word": "next"}))

        await self.process.step("effect", commit)

    async def _lease(self, delivery: Delivery) -> Lease:
        async with self._work() as work:
            return await work.inbox.lease(delivery, LEASE)

    async def _send(self, delivery: Delivery) -> None:
        self.truth.sent[delivery.id] += 1

    async def _done(self, delivery: Delivery) -> None:
        async with self._work() as work:
            await work.inbox.done(delivery)

    def _work(self) -> MemoryUnitOfWork:
        return MemoryUnitOfWork(self.messages.clock, self.messages, producer_version=self.release.version)

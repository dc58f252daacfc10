"""The ports of relay and worker, each of whose steps can be disturbed and is compared with the truth."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from tequipy_platform import Attempt, Batch, MessageLog, UnpublishedMessages
from tequipy_platform.messaging import deliveries
from tequipy_platform.testing import MemoryMessages
from tequipy_platform.testing.message_log import MemoryMessageLog
from tequipy_platform.testing.unpublished import MemoryUnpublishedMessages

from .processes import Process, Way
from .truth import Before, Run, Truth

R = TypeVar("R")


class SteppedLog(MessageLog):
    """The message log as one worker sees it."""

    def __init__(
        self, process: Process, log: MemoryMessageLog, messages: MemoryMessages, truth: Truth, schema: int
    ) -> None:
        self._process = process
        self._log = log
        self._messages = messages
        self._truth = truth
        self._schema = schema

    async def begin(
        self, message_id: UUID, worker: str, *, redelivered: bool = False, repeated: bool = False
    ) -> Attempt | None:
        way = await self._process.turn("begin")
        row, now = await self._messages.unlocked(message_id), self._messages.clock.now()
        before = Before("unknown", due=True)
        if row is not None:
            before = Before(row.state, due=row.state in {"published", "running"} or row.not_before <= now)
        attempt = await self._log.begin(message_id, worker, redelivered=redelivered, repeated=repeated)
        if attempt is not None:
            run = Run(self._process, attempt.number, now, known=way is not Way.FAIL_AFTER)
            self._truth.check_begin(message_id, before, run, after_death=attempt.after_death, redelivered=redelivered)
        self._process.end_turn("begin", way)
        setattr(deliveries, "MESSAGE_SCHEMA", self._schema)  # noqa: B010 -- the process that goes on is of this release
        return attempt

    async def succeed(self, attempt: Attempt) -> None:
        async def store() -> None:
            await self._log.succeed(attempt)
            self._truth.succeeded.add(attempt.message_id)

        await self._end(attempt, "succeed", store)

    async def fail(self, attempt: Attempt, error: str, *, retry_in: timedelta | None) -> None:
        await self._end(attempt, "fail", lambda: self._log.fail(attempt, error, retry_in=retry_in))

    async def postpone(self, attempt: Attempt, wait: timedelta) -> None:
        await self._end(attempt, "postpone", lambda: self._log.postpone(attempt, wait))

    async def wait_for_release(self, attempt: Attempt, reason: str) -> bool:
        async def store() -> bool:
            waits = await self._log.wait_for_release(attempt, reason)
            if not waits:
                self._truth.killed_unlogged.add(attempt.message_id)
            return waits

        waits = await self._end(attempt, "wait_for_release", store)
        if not waits:
            self._truth.killed_unlogged.discard(attempt.message_id)
        return waits

    async def hand_back(self, attempt: Attempt) -> None:
        await self._end(attempt, "hand_back", lambda: self._log.hand_back(attempt))

    async def _end(self, attempt: Attempt, step: str, store: Callable[[], Awaitable[R]]) -> R:
        async def end() -> R:
            row = await self._messages.unlocked(attempt.message_id)
            before = replace(row) if row is not None else None
            result = await store()
            self._truth.check_end(attempt.message_id, attempt.number, step, changed=row != before)
            return result

        return await self._process.step(step, end)

    async def record_foreign(self, text: str, *, queue: str | None, message_id: UUID | None = None) -> None:
        await self._process.step(
            "record_foreign", lambda: self._log.record_foreign(text, queue=queue, message_id=message_id)
        )

    async def purge_messages(
        self, *, outbox_age: timedelta, dead_letter_age: timedelta, inbox_age: timedelta, batch_size: int
    ) -> None:
        """Do nothing: no history is that long."""


class SteppedOutbox(UnpublishedMessages):
    """The outbox as one relay sees it."""

    def __init__(self, process: Process, messages: MemoryUnpublishedMessages) -> None:
        self._process = process
        self._messages = messages

    async def fan_out(self, subscribers: Mapping[str, Sequence[str]], limit: int) -> int:
        return await self._process.step("fan_out", lambda: self._messages.fan_out(subscribers, limit))

    @asynccontextmanager
    async def batch(self, limit: int) -> AsyncIterator[Batch]:
        way = await self._process.turn("lock")
        self._process.end_turn("lock", way)
        async with self._messages.batch(limit) as batch:
            yield batch
            way = await self._process.turn("commit") if batch.messages else Way.GO
        self._process.end_turn("commit", way)

    async def wait(self, at_most: float) -> None:
        del at_most
        await self._process.turn("wait")
        self._messages.reset_future_times()

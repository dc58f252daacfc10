"""A writer whose pieces a test controls, and storages that are away, stand still or suspend an attempt."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta

from tequipy_platform import StoredObject, Unavailable
from tequipy_platform.testing import FrozenClock, MemoryStorage
from tequipy_reporting import (
    Chunk,
    Report,
    ReportWriter,
)

SECOND = timedelta(seconds=1)


async def _nothing(_: int) -> None:
    pass


class ScriptedWriter(ReportWriter):
    """Writes ten pieces, and calls a coroutine function before each with its number."""

    def __init__(self, clock: FrozenClock, step: timedelta = SECOND) -> None:
        self.pieces = 0
        self.closed = False
        self.before: Callable[[int], Awaitable[None]] = _nothing
        self._clock = clock
        self._step = step

    async def write(self, report: Report) -> AsyncGenerator[Chunk]:  # noqa: ARG002 -- the port's signature
        try:
            for number in range(1, 11):
                await self.before(number)
                self._clock.advance(self._step)
                self.pieces = number
                yield Chunk(b"x" * 10, number / 10)
        finally:
            self.closed = True


class AwayStorage(MemoryStorage):
    """Storage that can be away."""

    away = False

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        if self.away:
            raise Unavailable
        return await super().put(key, content)


class StandingStorage(MemoryStorage):
    """Storage whose writes begin no sooner than an event."""

    def __init__(self, clock: FrozenClock, event: asyncio.Event) -> None:
        super().__init__(clock)
        self._event = event

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        await self._event.wait()
        return await super().put(key, content)


class SuspendedStorage(MemoryStorage):
    """Storage that calls a coroutine function once, before it lists anything."""

    before_list: Callable[[], Awaitable[None]] | None = None

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        call, self.before_list = self.before_list, None
        if call is not None:
            await call()
        async for each in super().list(prefix):
            yield each

"""The relay: turns rows of the outbox into messages, the one path by which work reaches the broker."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self

from celery import Celery
from kombu import Producer

from tequipy_platform.celery.tasks import CORRELATION_HEADER, TRACE_HEADER
from tequipy_platform.domain.outbox import PendingMessage, PendingMessages

BATCH: Final = 100
POLL_SECONDS: Final = 1.0
"""How long a notification may be missed for; also when a message that had to wait is looked for."""
_LONGEST_PAUSE: Final = 10.0

logger = logging.getLogger("tequipy.relay")


def build_relay(celery: Celery, messages: PendingMessages) -> "Relay":
    """Return a relay that publishes through `celery`, whose wired tasks say who hears which event."""
    return Relay(celery, messages)


class Relay:
    """Publishes what is pending until it is stopped; an async context manager around its publishing thread."""

    def __init__(self, celery: Celery, messages: PendingMessages) -> None:
        self._celery = celery
        self._messages = messages
        self._listeners: dict[str, list[str]] = {}
        for name, task in celery.tasks.items():
            for event in getattr(task, "on", ()):
                self._listeners.setdefault(event, []).append(name)
        self._stopping = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        # One thread: kombu blocks, and its connection belongs to one thread at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tequipy-relay")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def stop(self) -> None:
        """Ask `run` to return after the batch that it is at."""
        self._stopping.set()

    async def run(self) -> None:
        """Publish batch after batch until stopped; an outage of broker or database is waited out, and logged once.

        Cancelling it ends the batch that it is at first: what has been published is marked so.
        """
        failures = 0
        while not self._stopping.is_set():
            try:
                published = await _to_its_end(self._publish_batch())
            except Exception as error:  # noqa: BLE001 -- whatever is away comes back: ending would lose the relay too
                failures += 1
                if failures == 1:
                    logger.error("relay_interrupted", extra={"error": f"{type(error).__name__}: {error}"})  # noqa: TRY400 -- an outage is no bug: a traceback tells nothing
                await self._pause(min(_LONGEST_PAUSE, 0.1 * 2**failures))
                continue
            if failures:
                logger.info("relay_resumed", extra={"failures": failures})
                failures = 0
            if published < BATCH:
                await self._messages.wait(POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _publish_batch(self) -> int:
        await self._messages.spread(self._listeners)
        async with self._messages.batch(BATCH) as messages:
            if messages:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, messages)
            return len(messages)

    def _publish(self, messages: Sequence[PendingMessage]) -> None:
        with self._celery.producer_pool.acquire(block=True) as producer:
            for message in messages:
                self._send(producer, message)

    def _send(self, producer: Producer, message: PendingMessage) -> None:
        self._celery.send_task(
            message.task,
            kwargs=dict(message.payload),
            task_id=str(message.id),
            headers={CORRELATION_HEADER: message.correlation_id, TRACE_HEADER: message.traceparent},
            producer=producer,
            retry=False,  # the relay itself comes back to what it could not publish
        )


async def _to_its_end(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise

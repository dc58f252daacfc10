"""The relay: turns rows of the outbox into messages, the one path by which work reaches the broker."""

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from celery import Celery
from kombu import Producer
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]  # -- the stubs are of an older kombu

from tequipy_platform.celery.tasks import ATTEMPTS_HEADER, CORRELATION_HEADER, FAILING_HEADER, TRACE_HEADER
from tequipy_platform.domain.outbox import Batch, PendingMessage, PendingMessages

BATCH: Final = 100
POLL_SECONDS: Final = 1.0
"""How long a notification may be missed for; also when a message that had to wait is looked for."""
_LONGEST_PAUSE: Final = 10.0
_OUTAGES: Final = (OperationalError, BatchPublishError, OSError)
"""What publishing raises for the broker's sake and not for the message's: kombu says its transport's errors so."""

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
                full = await _to_its_end(self._publish_batch())
            except Exception as error:  # noqa: BLE001 -- whatever is away comes back: ending would lose the relay too
                failures += 1
                if failures == 1:
                    logger.error("relay_interrupted", extra={"error": f"{type(error).__name__}: {error}"})  # noqa: TRY400 -- an outage is no bug: a traceback tells nothing
                await self._pause(min(_LONGEST_PAUSE, 0.1 * 2**failures))
                continue
            if failures:
                logger.info("relay_resumed", extra={"failures": failures})
                failures = 0
            if not full:
                await self._messages.wait(POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _publish_batch(self) -> bool:
        """Publish what is due and tell whether more may be; raises what ended an unfinished batch."""
        events = await self._messages.spread(self._listeners, BATCH)
        outage = None
        async with self._messages.batch(BATCH) as batch:
            if batch.messages:
                outage = await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, batch)
        if outage is not None:  # only now: what was refused until then is marked so
            raise outage
        return BATCH in {events, len(batch.messages)}

    def _publish(self, batch: Batch) -> Exception | None:
        sent = set()
        try:
            # One round trip for them all, when the block is left.
            with self._celery.producer_pool.acquire(block=True) as producer, producer.batch(BATCH):  # type: ignore[attr-defined]  # -- as above
                for message in batch.messages:
                    if self._send(producer, message):
                        sent.add(message.id)
                    else:
                        batch.refused.add(message.id)
        except _OUTAGES as error:
            return error  # which of them have arrived is not known: all are published again, under the same ids
        batch.published.update(sent)
        return None

    def _send(self, producer: Producer, message: PendingMessage) -> bool:
        """Hand a message to the producer; tell whether it could be made."""
        try:
            self._celery.send_task(
                message.task,
                kwargs=dict(message.payload),
                task_id=str(message.id),
                headers={
                    CORRELATION_HEADER: message.correlation_id,
                    TRACE_HEADER: message.traceparent,
                    ATTEMPTS_HEADER: message.failed_attempts,
                    FAILING_HEADER: message.failing_since.timestamp() if message.failing_since else None,
                },
                producer=producer,
                retry=False,  # the relay itself comes back to what it could not publish
            )
        except _OUTAGES:
            raise
        except Exception:
            # This one's own fault: the others need not wait for it.
            logger.exception("message_refused", extra={"message_id": str(message.id), "task": message.task})
            return False
        return True


async def _to_its_end(work: Coroutine[Any, Any, bool]) -> bool:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise

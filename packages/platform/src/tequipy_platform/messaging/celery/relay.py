"""The relay: publishes the messages of the outbox to the broker."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from celery import Celery
from kombu import Producer
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]  # -- the stubs are of an older kombu

from tequipy_observability import MESSAGE_CORRELATION_HEADER, TRACE_HEADER
from tequipy_platform._messages import Batch, UnpublishedMessage, UnpublishedMessages
from tequipy_platform._tasks import Task
from tequipy_platform.messaging.celery.headers import ATTEMPTS_HEADER, FAILING_HEADER

BATCH: Final = 100
POLL_SECONDS: Final = 1.0
"""The longest delay after a lost notification, and for a message whose `not_before` has come."""
_MAX_PAUSE: Final = 10.0
_OUTAGES: Final = (OperationalError, BatchPublishError, OSError)
"""Errors of the broker's connection, as kombu declares them, in contrast to errors of one message."""

logger = logging.getLogger(__name__)


def build_relay(celery: Celery, messages: UnpublishedMessages, tasks: Sequence[Task]) -> "Relay":
    """Return a relay that publishes through `celery`, which must be built from the same tasks."""
    return Relay(celery, messages, tasks)


class Relay:
    """Publishes unpublished messages until it is stopped; the context manager runs its publishing thread."""

    def __init__(self, celery: Celery, messages: UnpublishedMessages, tasks: Sequence[Task]) -> None:
        self._celery = celery
        self._messages = messages
        self._subscribers: dict[str, list[str]] = {}
        for task in tasks:
            for event in task.on:
                self._subscribers.setdefault(event, []).append(task.name)
        self._stopping = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        # One thread, because kombu blocks and its connection may be used by one thread at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tequipy-relay")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def stop(self) -> None:
        """Make `run` return after its current batch."""
        self._stopping.set()

    async def run(self) -> None:
        """Publish batch after batch until stopped; an outage of broker or database is retried and logged once.

        After a cancellation the current batch is finished first, so that published messages are recorded as such.
        """
        failures = 0
        while not self._stopping.is_set():
            try:
                full = await _run_to_end(self._publish_batch())
            except Exception as error:  # noqa: BLE001 -- any outage may be temporary, and the relay must survive it
                failures += 1
                if failures == 1:
                    logger.error("relay_interrupted", extra={"error": f"{type(error).__name__}: {error}"})  # noqa: TRY400 -- an outage needs no traceback
                await self._pause(min(_MAX_PAUSE, 0.1 * 2**failures))
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
        """Publish the due messages; return whether more may be due; raise the error that interrupted the batch."""
        events = await self._messages.fan_out(self._subscribers, BATCH)
        outage = None
        async with self._messages.batch(BATCH) as batch:
            if batch.messages:
                outage = await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, batch)
        if outage is not None:  # raised after the block, so that refused messages are recorded
            raise outage
        return BATCH in {events, len(batch.messages)}

    def _publish(self, batch: Batch) -> Exception | None:
        sent = set()
        try:
            # Leaving the block sends all messages in one round trip.
            with self._celery.producer_pool.acquire(block=True) as producer, producer.batch(BATCH):  # type: ignore[attr-defined]  # -- as above
                for message in batch.messages:
                    if self._send(producer, message):
                        sent.add(message.id)
                    else:
                        batch.refused.add(message.id)
        except _OUTAGES as error:
            return error  # it is unknown which messages arrived, so all are published again under the same ids
        batch.published.update(sent)
        return None

    def _send(self, producer: Producer, message: UnpublishedMessage) -> bool:
        """Pass a message to the producer; return whether it could be encoded."""
        try:
            self._celery.send_task(
                message.task,
                kwargs=dict(message.payload),
                task_id=str(message.id),
                headers={
                    MESSAGE_CORRELATION_HEADER: message.correlation_id,
                    TRACE_HEADER: message.traceparent,
                    ATTEMPTS_HEADER: message.failed_attempts,
                    FAILING_HEADER: message.failing_since.timestamp() if message.failing_since else None,
                },
                producer=producer,
                retry=False,  # the relay itself retries
            )
        except _OUTAGES:
            raise
        except Exception:
            # The error concerns this message alone, so the others are still published.
            logger.exception("message_refused", extra={"message_id": str(message.id), "task": message.task})
            return False
        return True


async def _run_to_end(work: Coroutine[Any, Any, bool]) -> bool:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise

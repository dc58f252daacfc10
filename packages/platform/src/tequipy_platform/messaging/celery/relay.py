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

from tequipy_observability import MESSAGE_CORRELATION_HEADER, TRACE_HEADER
from tequipy_platform._messages import MESSAGE_SCHEMA, Batch, UnpublishedMessage, UnpublishedMessages
from tequipy_platform._tasks import Task
from tequipy_platform.messaging.celery.broker_probe import accepts_writes
from tequipy_platform.messaging.celery.headers import PRODUCER_HEADER, SCHEMA_HEADER
from tequipy_platform.messaging.deliveries import describe

BATCH: Final = 100
POLL_SECONDS: Final = 1.0
"""The longest delay after a lost notification, and for a message whose `not_before` has come."""
_MAX_PAUSE: Final = 10.0

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
        if outage is not None:  # raised after the block, so that the results of other messages are recorded
            raise outage
        return BATCH in {events, len(batch.messages)}

    def _publish(self, batch: Batch) -> Exception | None:
        """Publish in one round trip, or singly after an error; return the error if the broker accepts nothing."""
        try:
            with self._celery.producer_pool.acquire(block=True) as producer, producer.batch(BATCH):  # type: ignore[attr-defined]  # -- the stubs are of an older kombu
                for message in batch.messages:
                    self._send(producer, message)
        except Exception as error:  # noqa: BLE001 -- of the broker, or of any message
            return self._publish_singly(batch, error)
        batch.published.update(message.id for message in batch.messages)
        return None

    def _publish_singly(self, batch: Batch, error: Exception) -> Exception | None:
        """Publish each message alone, so that one that the broker refuses stops no other.

        It is unknown which messages of the failed round trip have arrived; a second copy of one is harmless.
        """
        for message in batch.messages:
            try:
                with self._celery.producer_pool.acquire(block=True) as producer:
                    self._send(producer, message)
            except Exception as refusal:  # noqa: BLE001 -- as above
                if not accepts_writes(self._celery):
                    return error
                text = f"the broker refuses the message: {describe(refusal)}"
                fields = {"message_id": str(message.id), "task": message.task, "error": text}
                logger.error("message_refused", extra=fields)  # noqa: TRY400 -- the text says all
                batch.refused[message.id] = text
            else:
                batch.published.add(message.id)
        return None

    def _send(self, producer: Producer, message: UnpublishedMessage) -> None:
        headers = {
            MESSAGE_CORRELATION_HEADER: message.correlation_id,
            TRACE_HEADER: message.traceparent,
            SCHEMA_HEADER: MESSAGE_SCHEMA,
            PRODUCER_HEADER: message.producer_version,
        }
        self._celery.send_task(
            message.task,
            task_id=str(message.id),
            headers={name: value for name, value in headers.items() if value is not None},
            producer=producer,
            retry=False,  # the relay itself retries
        )


async def _run_to_end(work: Coroutine[Any, Any, bool]) -> bool:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise

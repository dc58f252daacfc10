"""The relay: publishes the messages of the outbox to a broker."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from tequipy_observability import tracing_enabled
from tequipy_platform._message_spans import sending_spans
from tequipy_platform._messages import Batch, UnpublishedMessage, UnpublishedMessages
from tequipy_platform._tasks import Task
from tequipy_platform.messaging.deliveries import describe

BATCH: Final = 100
POLL_SECONDS: Final = 1.0
"""The longest delay after a lost notification, and for a message whose `not_before` has come."""
_MAX_PAUSE: Final = 10.0
_MAX_DOUBLINGS: Final = 7
"""More would exceed `_MAX_PAUSE`, and after hours of an outage the range of a float."""

logger = logging.getLogger(__name__)


class Broker(ABC):
    """What the relay asks of a broker; an async context manager that closes its resources."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open the resources."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the resources."""

    @abstractmethod
    async def publish(self, messages: Sequence[UnpublishedMessage]) -> None:
        """Publish messages in one round trip, in order; after an error any of them may have arrived."""

    @abstractmethod
    async def accepts_writes(self) -> bool:
        """Return whether the broker accepts a tiny message."""


class Relay:
    """Publishes unpublished messages until it is stopped; the context manager runs its broker."""

    def __init__(self, broker: Broker, messages: UnpublishedMessages, tasks: Sequence[Task]) -> None:
        self._broker = broker
        self._messages = messages
        self._subscribers: dict[str, list[str]] = {}
        for task in tasks:
            for event in task.on:
                self._subscribers.setdefault(event, []).append(task.name)
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._broker.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._broker.__aexit__(kind, error, traceback)

    def stop(self) -> None:
        """Make `run` return after its current batch."""
        self._stopping.set()

    async def run(self) -> None:
        """Publish batch after batch until stopped; an outage of broker or database is retried and logged once.

        After a cancellation the current batch is finished first, so that published messages are recorded as such.
        """
        logger.info("relay_started", extra={"batch": BATCH, "events": sorted(self._subscribers)})
        failures = 0
        while not self._stopping.is_set():
            try:
                full = await _run_to_end(self._publish_batch())
            except Exception as error:  # noqa: BLE001 -- any outage may be temporary, and the relay must survive it
                failures += 1
                if failures == 1:
                    logger.error("relay_interrupted", extra={"error": describe(error)})  # noqa: TRY400 -- an outage needs no traceback
                await self._pause(min(_MAX_PAUSE, 0.1 * 2 ** min(failures, _MAX_DOUBLINGS)))
                continue
            if failures:
                logger.info("relay_resumed", extra={"failures": failures})
                failures = 0
            if not full:
                await self._messages.wait(POLL_SECONDS)
        logger.info("relay_stopped")

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
                outage = await self._publish(batch)
        if outage is not None:  # raised after the block, so that the results of other messages are recorded
            raise outage
        return BATCH in {events, len(batch.messages)}

    async def _publish(self, batch: Batch) -> Exception | None:
        """Publish in one round trip, or singly after an error; return the error if the broker accepts nothing."""
        try:
            await self._send(batch.messages)
        except Exception as error:  # noqa: BLE001 -- of the broker, or of any message
            return await self._publish_singly(batch, error)
        batch.published.update(message.id for message in batch.messages)
        return None

    async def _send(self, messages: Sequence[UnpublishedMessage]) -> None:
        """Publish messages, and record the round trip in the trace of each."""
        steps = sending_spans(messages) if tracing_enabled() else ()
        failure = None
        try:
            await self._broker.publish(messages)
        except BaseException as error:
            failure = error
            raise
        finally:
            for step in steps:
                step.end(failure)

    async def _publish_singly(self, batch: Batch, error: Exception) -> Exception | None:
        """Publish each message alone, so that one that the broker refuses stops no other.

        It is unknown which messages of the failed round trip have arrived; a second copy of one is harmless.
        """
        for message in batch.messages:
            try:
                await self._send([message])
            except Exception as refusal:  # noqa: BLE001 -- as above
                if not await self._broker.accepts_writes():
                    return error
                text = f"the broker refuses the message: {describe(refusal)}"
                fields = {"message_id": str(message.id), "task": message.task, "error": text}
                logger.error("message_refused", extra=fields)  # noqa: TRY400 -- the text says all
                batch.refused[message.id] = text
            else:
                batch.published.add(message.id)
        return None


async def _run_to_end(work: Coroutine[Any, Any, bool]) -> bool:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise

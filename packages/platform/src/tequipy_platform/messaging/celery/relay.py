"""The relay's broker, through Celery."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from celery import Celery
from kombu import Producer

from tequipy_observability import MESSAGE_CORRELATION_HEADER, TRACE_HEADER
from tequipy_platform._messages import MESSAGE_SCHEMA, UnpublishedMessage, UnpublishedMessages
from tequipy_platform._tasks import Task
from tequipy_platform.messaging.celery.broker_probe import accepts_writes
from tequipy_platform.messaging.celery.headers import PRODUCER_HEADER, SCHEMA_HEADER
from tequipy_platform.messaging.relay import BATCH, Broker, Relay

R = TypeVar("R")


def build_relay(celery: Celery, messages: UnpublishedMessages, tasks: Sequence[Task]) -> Relay:
    """Return a relay that publishes through `celery`, which must be built from the same tasks."""
    return Relay(CeleryBroker(celery), messages, tasks)


class CeleryBroker(Broker):
    """The broker of a Celery app; the context manager runs its publishing thread."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
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

    async def publish(self, messages: Sequence[UnpublishedMessage]) -> None:
        """Publish messages in one round trip."""
        await self._in_thread(lambda: self._publish(messages))

    async def accepts_writes(self) -> bool:
        """Return whether the broker accepts a tiny message."""
        return await self._in_thread(lambda: accepts_writes(self._celery))

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _publish(self, messages: Sequence[UnpublishedMessage]) -> None:
        with self._celery.producer_pool.acquire(block=True) as producer:
            if len(messages) == 1:
                self._send(producer, messages[0])
                return
            with producer.batch(BATCH):  # type: ignore[attr-defined]  # -- the stubs are of an older kombu
                for message in messages:
                    self._send(producer, message)

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

"""Celery's consumer in the worker's main process, which survives messages that are not ours."""

from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu.message import Message
from vine import promise as vine_promise

from tequipy_platform.messaging.celery.foreign import accept_message


class TolerantConsumer(Consumer):
    """Handles each message as `accept_message` leaves it."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[valid-type,misc]  # -- Celery's form
        """Celery's steps without the one that would declare 28 queues for delays in RabbitMQ, which are not used."""

        default_steps = [step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")]  # noqa: RUF012 -- as above

    def create_task_handler(self, promise: Any = vine_promise) -> Callable[[Message], None]:  # noqa: ANN401 -- Celery's signature
        """Return the function that is called with each message."""
        handle: Callable[[Message], None] = super().create_task_handler(promise)

        def accept(message: Message) -> None:
            accept_message(message, self.strategies)  # type: ignore[attr-defined]  # -- Celery's, unknown to its stubs
            handle(message)

        self._accept = accept
        return accept

    def on_decode_error(self, message: Message, exc: Exception) -> None:  # noqa: ARG002 -- Celery's signature
        """Handle a message that kombu could not decompress like any other foreign one."""
        self._accept(message)

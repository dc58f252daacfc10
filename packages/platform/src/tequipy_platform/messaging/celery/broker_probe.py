"""A tiny write that tells a broker which refuses everything from a broker that refuses one message."""

import logging
from typing import Final

from celery import Celery
from kombu import Producer, Queue

from tequipy_platform.messaging.deliveries import describe

PROBE_QUEUE: Final = "tequipy.probe"
"""The queue of the probes; nobody consumes it, and each probe empties it again."""
_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


def accepts_writes(celery: Celery) -> bool:
    """Publish a tiny message to a queue of its own and remove it; return whether the broker accepted it.

    False for a broker that is away, hangs, is full, or is a read-only replica. The probe uses a connection of its own
    and gives up after about 5 s for each of its steps: connect, publish and remove.
    """
    # Of the same type as the queues of tasks, because RabbitMQ may refuse one type (quorum queues without a majority).
    model = celery.amqp.queues[celery.conf.task_default_queue]
    queue = Queue(PROBE_QUEUE, queue_arguments=model.queue_arguments)
    with celery.connection_for_write(connect_timeout=_SECONDS) as connection:
        refusals = connection.channel_errors
        try:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            with connection.channel() as channel:
                bound = queue.bind(channel)
                bound.queue_declare()
                # By the default exchange, which needs no binding and so no further key or right.
                Producer(channel).publish(
                    {}, serializer="json", routing_key=PROBE_QUEUE, timeout=_SECONDS, confirm_timeout=_SECONDS
                )
                bound.purge()
        except Exception as error:  # noqa: BLE001 -- whatever the reason, the broker did not accept the message
            # An outage is reported by those who use the broker; a refusal (full, no right) has its reason only here.
            level = logging.WARNING if isinstance(error, refusals) else logging.DEBUG
            logger.log(level, "broker_probe_failed", extra={"error": describe(error)})
            return False
    return True

"""The configuration of Celery; each setting prevents a fault that lost or duplicated a task in tests."""

from collections.abc import Iterable, Sequence
from typing import Final

from celery import Celery
from kombu import Queue
from pydantic import SecretStr

from tequipy_platform._tasks import DEFAULT_QUEUE, Task
from tequipy_platform.messaging.celery.broker_url import AmqpUrl
from tequipy_platform.messaging.celery.settings import CelerySettings

MIN_TIME_LIMIT: Final = 10.0
"""Seconds; a shorter limit could end a task before the death of its process is noticed (see `worker_lost_wait`)."""


def build_celery(
    settings: CelerySettings, tasks: Sequence[Task] = (), *, name: str, queues: Iterable[str] = ()
) -> Celery:
    """Return a Celery app that delivers each message at least once, whichever process is killed.

    It knows the queue of each task, which is all that a relay needs. A worker consumes the queues of the tasks and the
    further `queues`.

    Raises `ValueError` for a time limit that is not below the broker's visibility timeout, because the message would be
    delivered a second time while the first delivery is still handled, and for a time limit under 10 s, because a killed
    child process could count as a timeout, which loses the message.
    """
    for task in tasks:
        _check_limit(task, visibility_timeout=settings.visibility_timeout)
    declared = dict.fromkeys([DEFAULT_QUEUE, *queues, *(task.queue for task in tasks)])
    broker = settings.broker
    # Quorum queues survive the loss of a node, and are the only replicated ones that RabbitMQ 4 has.
    arguments = {"x-queue-type": "quorum"} if isinstance(broker, AmqpUrl) else None
    celery = Celery(name, broker=_without_options(settings.broker_url), set_as_current=False)
    celery.conf.update(
        # JSON only, because reading other formats (pickle) can run code.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        timezone="UTC",
        enable_utc=True,
        task_queues=[Queue(queue, routing_key=queue, queue_arguments=arguments) for queue in declared],
        task_default_queue=DEFAULT_QUEUE,
        task_routes={task.name: {"queue": task.queue} for task in tasks},
        # Messages are acknowledged when their task is done. acks_late alone would acknowledge, and so lose, the message
        # of a killed child process. The outbox row counts the deaths, so that no task dies for ever.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # A killed child is noticed within 5 s, and its task counts as lost 2 s later. Celery's default of 10 s may end
        # after the hard limit of a short task, which then counts as timed out: acknowledged and lost.
        worker_lost_wait=2.0,
        # One message per child, so that other workers can take the waiting ones.
        worker_prefetch_multiplier=1,
        # True would kill running tasks for good when the connection to the broker is lost.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_time_limit=settings.time_limit,
        task_soft_time_limit=settings.soft_time_limit,
        # The broker is asked for messages alone: remote control and events need queues that broadcast, and their
        # connections keep a worker from stopping while the broker hangs.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # tequipy_observability configures logging.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Bodies that are no messages of ours end no worker: they reach a child as messages of a catch-all task.
        worker_consumer="tequipy_platform.messaging.celery.consumer:TolerantConsumer",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # kombu verifies no certificate by default.
        broker_use_ssl=dict(broker.tls) if broker.tls else None,
        **(_rabbitmq_options() if isinstance(broker, AmqpUrl) else _redis_options(settings)),
    )
    _set_results(celery, settings)
    return celery


def _check_limit(task: Task, *, visibility_timeout: float) -> None:
    if task.time_limit is None:  # the worker's own limit, which its settings check
        return
    limit = task.time_limit.total_seconds()
    if limit < MIN_TIME_LIMIT:
        raise ValueError(f"task {task.name}: its time limit of {limit:g} s must be at least {MIN_TIME_LIMIT:g} s")
    if limit >= visibility_timeout:
        raise ValueError(
            f"task {task.name}: its time limit of {limit:g} s must be below the visibility timeout of "
            f"{visibility_timeout:g} s (the setting visibility_timeout)"
        )


def _redis_options(settings: CelerySettings) -> dict[str, object]:
    options = {
        "visibility_timeout": settings.visibility_timeout,
        # Look for messages of dead workers every 2 s; kombu's defaults amount to about 50 s.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 5,
        # Treats a broker that hangs as unreachable; without a timeout the relay would hold its transaction open.
        "socket_timeout": 5,
        "socket_keepalive": True,
    }
    return {
        "broker_transport": "tequipy_platform.messaging.celery.redis_transport:Transport",
        "broker_transport_options": options,
    }


def _rabbitmq_options() -> dict[str, object]:
    options = {
        # Each publication waits until the queue has stored the message; without it, a lost one would be unnoticed.
        "confirm_publish": True,
        # Seconds without which a broker that hangs would block a worker or relay for ever.
        "read_timeout": 5,
        "write_timeout": 5,
    }
    return {
        "broker_transport": "tequipy_platform.messaging.celery.amqp_transport:Transport",
        "broker_transport_options": options,
        "broker_connection_timeout": 5,
        # A worker finds out about a dead connection within a minute.
        "broker_heartbeat": 30,
    }


def _without_options(url: SecretStr) -> str:
    """Return the URL without its options, which kombu and Celery get by other settings."""
    return url.get_secret_value().partition("?")[0]


def _set_results(celery: Celery, settings: CelerySettings) -> None:
    """Configure the result backend, if any: by default there is none, since a dead one blocks publishers for 20 s."""
    celery.conf.task_ignore_result = settings.result_backend is None
    if settings.result_backend is not None:
        celery.conf.update(
            result_backend=_without_options(settings.result_backend),
            redis_backend_use_ssl=dict(settings.result_tls) if settings.result_tls else None,
            result_backend_transport_options=_redis_options(settings)["broker_transport_options"],
            task_track_started=True,
        )

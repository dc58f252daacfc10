"""A Celery app that keeps its word: each setting here was found to be needed by a fault that lost or doubled a task."""

import os
from collections.abc import Mapping
from typing import Any, Final, Protocol

# Read by billiard when it is imported: SIGTERM then begins the soft shutdown, as container platforms expect.
os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # noqa: TID251 -- billiard has no other way to be told

from celery import Celery
from kombu import Queue
from pydantic import SecretStr

QUEUES: Final = ("default", "email", "reports", "aggregation")


class BrokerPolicy(Protocol):
    """What `build_celery` needs to know: `tequipy_platform.wiring.CelerySettings` is one; times in seconds."""

    @property
    def broker_url(self) -> SecretStr:
        """A Redis database of its own."""

    @property
    def result_backend(self) -> SecretStr | None:
        """None: results are not kept."""

    @property
    def broker_tls(self) -> Mapping[str, Any] | None:
        """How the broker is verified, as arguments of redis-py's `SSLConnection`; None: not encrypted."""

    @property
    def result_tls(self) -> Mapping[str, Any] | None:
        """The same for the result backend."""

    @property
    def soft_time_limit(self) -> int:
        """When a task is asked to end."""

    @property
    def time_limit(self) -> int:
        """When its process is killed."""

    @property
    def visibility_timeout(self) -> int:
        """When a message that nobody acknowledged is delivered again."""

    @property
    def soft_shutdown_timeout(self) -> int:
        """How long a stopping worker waits for its tasks."""


def build_celery(settings: BrokerPolicy, *, name: str) -> Celery:
    """Return an app that delivers at least once, whichever process is killed."""
    celery = Celery(name, broker=_without_options(settings.broker_url), set_as_current=False)
    celery.conf.update(
        # JSON only: a message can hold nothing that runs when it is read.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        timezone="UTC",
        enable_utc=True,
        task_queues=[Queue(queue) for queue in QUEUES],
        task_default_queue="default",
        # Acknowledged when done, so that a message outlives the process that took it; acks_late alone acknowledges and
        # loses the message of a killed child, and without the retry a task that always dies would run for ever.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_retry_on_worker_lost=True,
        # A killed child is noticed within 5 s and its task called lost 2 s later. Celery's own 10 s could come after
        # the hard limit of a short task, which then counts as timed out: acknowledged, and lost.
        worker_lost_wait=2.0,
        # One message a child: what waits can be taken by others.
        worker_prefetch_multiplier=1,
        # True kills running tasks for good when the broker's connection is lost.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_time_limit=settings.time_limit,
        task_soft_time_limit=settings.soft_time_limit,
        # SIGTERM: short tasks finish, long ones and those that wait are handed back; an idle worker stops at once.
        worker_soft_shutdown_timeout=settings.soft_shutdown_timeout,
        beat_scheduler="tequipy_platform.celery.scheduler:SteadyScheduler",
        # Logging is observability's.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
        # kombu verifies nothing of `rediss://` by itself.
        broker_use_ssl=dict(settings.broker_tls) if settings.broker_tls else None,
    )
    _set_results(celery, settings)
    return celery


def _transport_options(settings: BrokerPolicy) -> dict[str, object]:
    return {
        "visibility_timeout": settings.visibility_timeout,
        # Look for messages of dead workers every 2 s; kombu's own values come to about every 50 s.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 5,
        # A broker that hangs is one that is away: without it the relay waits in its transaction for as long.
        "socket_timeout": 5,
        "socket_keepalive": True,
    }


def _without_options(url: SecretStr) -> str:
    """Return the URL for kombu and Celery, which get the options by `broker_tls` and `result_tls`."""
    return url.get_secret_value().partition("?")[0]


def _set_results(celery: Celery, settings: BrokerPolicy) -> None:
    """Keep no results unless asked: a result backend on a Redis that is down blocks every publisher for 20 s."""
    celery.conf.task_ignore_result = settings.result_backend is None
    if settings.result_backend is not None:
        celery.conf.update(
            result_backend=_without_options(settings.result_backend),
            redis_backend_use_ssl=dict(settings.result_tls) if settings.result_tls else None,
            result_backend_transport_options=celery.conf.broker_transport_options,
            task_track_started=True,
        )

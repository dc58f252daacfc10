"""Declarations of tasks that build_celery accepts or refuses."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from tequipy_platform import Delivery, Task
from tequipy_platform.messaging.celery import CelerySettings, build_celery
from tequipy_platform.messaging.deliveries import check_handlers


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (Task("test.slow", time_limit=timedelta(minutes=10)), "time limit.*setting visibility_timeout"),
        (Task("test.hasty", time_limit=timedelta(seconds=9)), "time limit.*at least 10 s"),
    ],
)
def test_a_task_whose_times_do_not_fit_the_broker_is_refused(task: Task, what: str) -> None:
    """A task whose message could be delivered twice at once, or lost with its process, is refused in every process."""
    with pytest.raises(ValueError, match=f"{task.name}.*{what}"):
        build_celery(CelerySettings(broker_url=SecretStr("redis://localhost:1")), [task], name="test")


def test_a_relay_knows_the_queues() -> None:
    """A task is sent to its queue, only queues of tasks and given ones exist, and Celery Beat would send nothing."""
    tasks = [Task("test.hourly", every=timedelta(hours=1), queue="reports"), Task("test.asked_for")]
    settings = CelerySettings(broker_url=SecretStr("redis://localhost:1"))
    celery = build_celery(settings, tasks, name="test", queues=["email"])
    assert celery.conf.beat_schedule == {}
    assert celery.conf.task_routes["test.hourly"] == {"queue": "reports"}
    assert [queue.name for queue in celery.conf.task_queues] == ["default", "email", "reports"]


async def nothing(_: Delivery) -> None:
    """Do nothing."""


def test_tasks_and_handlers_are_the_same() -> None:
    """A task without a handler, and a handler for an undeclared task, are refused by name."""
    declared, undeclared = Task("test.declared"), Task("test.undeclared")
    with pytest.raises(ValueError, match=r"test\.declared, test\.undeclared"):
        check_handlers([declared], {undeclared: nothing})

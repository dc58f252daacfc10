"""The worker's tasks fit every stack that is shipped, and their declarations are cheap to load."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from annotated_types import Le

from tequipy_platform import Task
from tequipy_platform.mail import MailSettings
from tequipy_platform.messaging.celery import CelerySettings, build_celery
from tequipy_worker.catalogue import QUEUES, TASKS

ROOT = Path(__file__).parents[1]
TIME = re.compile(r"TEQUIPY_CELERY__((?:SOFT_)?TIME_LIMIT|VISIBILITY_TIMEOUT)\"?\s*[:=]\s*\"?(\d+)")
# The local stack, the fault tests, and what a deployment sets; none means the defaults.
STACKS = [
    "tools/devstack/src/tequipy_devstack/stack.py",
    "tools/devstack/src/tequipy_devstack/proving/apps.py",
    ".env.example",
]


def times(stack: str) -> dict[str, int]:
    """Return the time limits that a stack sets."""
    return {name.lower(): int(value) for name, value in TIME.findall((ROOT / stack).read_text(encoding="utf-8"))}


@pytest.mark.parametrize("stack", STACKS)
def test_every_task_fits_every_stack(stack: str) -> None:
    """The worker's tasks, and a task with the default time limit, are accepted with the times of each shipped stack."""
    settings = CelerySettings.model_validate({"broker_url": "redis://localhost/1", **times(stack)})
    build_celery(settings, [*TASKS, Task("test.default")], name="test")


@pytest.mark.parametrize("stack", STACKS)
def test_an_attempt_at_a_mail_ends_within_its_task(stack: str) -> None:
    """`TEQUIPY_MAIL__TOTAL_TIMEOUT` is below the task's soft time limit, and below the hard one whatever is set."""
    field = MailSettings.model_fields["total_timeout"]
    (highest,) = [float(str(each.le)) for each in field.metadata if isinstance(each, Le)]
    (limit,) = [task.time_limit.total_seconds() for task in TASKS if task.name == "auth.send_mail" and task.time_limit]
    settings = CelerySettings.model_validate({"broker_url": "redis://localhost/1", **times(stack)})
    quit_seconds = 1
    assert field.default + quit_seconds < int(limit * settings.soft_time_limit / settings.time_limit)
    assert highest + quit_seconds < limit


def test_every_queue_of_a_task_is_declared() -> None:
    """Operators find the queue of each task among the queues that the worker names."""
    assert {task.queue for task in TASKS} <= set(QUEUES)


def test_the_catalogue_loads_no_driver() -> None:
    """The catalogue of tasks needs neither the database's driver nor Redis, Celery or password hashing."""
    drivers = {"sqlalchemy", "asyncpg", "redis", "celery", "bcrypt", "jwt"}
    code = f"import sys, tequipy_worker.catalogue; print({drivers} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "set()"

"""The tasks, queues and mails of the worker, which all of its processes share."""

from typing import Final

from tequipy_auth.tasks import TASKS as AUTH
from tequipy_platform import Task
from tequipy_platform.tasks import TASKS as PLATFORM

TASKS: Final[tuple[Task, ...]] = (*PLATFORM, *AUTH)
QUEUES: Final = tuple(dict.fromkeys([*(task.queue for task in TASKS), "reports", "aggregation"]))
"""The queues of the tasks, and two without a task, so that deployments can name them already."""
MAIL_PACKAGES: Final = ("tequipy_auth",)
"""The packages that have mail templates."""

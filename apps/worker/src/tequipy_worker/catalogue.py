"""The tasks, queues and mails of the worker, which all of its processes share."""

from typing import Final

from tequipy_auth.tasks import TASKS as AUTH
from tequipy_platform import Task
from tequipy_platform.tasks import TASKS as PLATFORM
from tequipy_reporting.tasks import TASKS as REPORTING

TASKS: Final[tuple[Task, ...]] = (*PLATFORM, *AUTH, *REPORTING)
QUEUES: Final = tuple(dict.fromkeys([*(task.queue for task in TASKS), "aggregation"]))
"""The queues of the tasks, and one without a task, so that deployments can name it already."""
MAIL_PACKAGES: Final = ("tequipy_auth",)
"""The packages that have mail templates."""

"""The tasks and queues of the worker, which all of its processes share."""

from typing import Final

from tequipy_auth.tasks import TASKS as AUTH
from tequipy_platform import Task
from tequipy_platform.tasks import TASKS as PLATFORM

TASKS: Final[tuple[Task, ...]] = (*PLATFORM, *AUTH)
QUEUES: Final = ("default", "email", "reports", "aggregation")
"""The queues that operators know; those without a task are declared too, so that deployments can name them already."""

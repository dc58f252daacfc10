"""The tasks, queues, permissions and mails of the features, which all processes of the worker share."""

from typing import Final

from tequipy_auth import Permission
from tequipy_auth.tasks import TASKS as AUTH
from tequipy_platform import Task
from tequipy_platform.tasks import TASKS as PLATFORM
from tequipy_reporting import PERMISSIONS as REPORTING_PERMISSIONS
from tequipy_reporting.tasks import TASKS as REPORTING

TASKS: Final[tuple[Task, ...]] = (*PLATFORM, *AUTH, *REPORTING)
QUEUES: Final = tuple(dict.fromkeys(task.queue for task in TASKS))
"""The queues of the tasks."""
PERMISSIONS: Final[tuple[Permission, ...]] = (*REPORTING_PERMISSIONS,)
"""The permissions of all features but auth, which adds its own."""
MAIL_PACKAGES: Final = ("tequipy_auth", "tequipy_reporting")
"""The packages that have mail templates."""
